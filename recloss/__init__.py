"""recloss: recommendation losses over scores, and what is needed to compare them. Pure PyTorch."""

__version__ = "0.1.0"
