"""Evaluation: one timed inference loop, and metrics, curves and confusion of its results."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
