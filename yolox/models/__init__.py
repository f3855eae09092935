"""YOLOX models: blocks, backbones, necks, head, assignment, loss, and building from a spec."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
