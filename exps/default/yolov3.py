"""YOLOv3 with the YOLOX head on data in the VOC layout."""

from yolox.exp.default import YOLOv3 as Exp

__all__ = ["Exp"]
