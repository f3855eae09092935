"""Exp: the typed recipe of a run, and the files and names that it is loaded from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
