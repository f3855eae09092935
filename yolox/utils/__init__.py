"""Pieces without a layer of their own: boxes, checkpoints, averages, schedules, logging.

Names are imported when they are used, so that errors, logging and files cost no import of torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
