"""A checkpoint or an exported file, and pictures in any form → detections.

>>> detector = yolox.load("best_ckpt.pth")
>>> for found in detector.predict("photos/"):
...     print(found.path, found.boxes, found.scores, found.class_names)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
