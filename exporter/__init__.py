"""From a trained PyTorch checkpoint to mobile artifacts that are proven equal to it."""

__version__ = "0.1.0"
