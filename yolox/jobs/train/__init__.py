"""From an Exp to a running training: where it starts, what fine-tuning changes, the trainer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
