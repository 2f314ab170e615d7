"""The Platform's endpoints, a file for each part of its API."""
