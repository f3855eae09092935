"""A YOLOX object detector with exact, verified structured channel pruning built in."""

__version__ = "0.1.0"
