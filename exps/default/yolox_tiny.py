"""YOLOX-tiny on data in the VOC layout."""

from yolox.exp.default import YOLOXTiny as Exp

__all__ = ["Exp"]
