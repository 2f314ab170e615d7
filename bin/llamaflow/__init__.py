"""What two or more steps of LlamaFlow share."""

__version__ = "0.1.0.dev0"
