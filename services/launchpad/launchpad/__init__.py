"""LlamaFlow's launchpad: runs pipelines on one machine behind the API of the Seqera Platform."""
