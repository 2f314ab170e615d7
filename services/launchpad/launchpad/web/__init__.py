"""The launchpad's pages for people, made on the server: they read and need no JavaScript, which only keeps them up to date."""
