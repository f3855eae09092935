"""YOLOX-nano on data in the VOC layout."""

from yolox.exp.default import YOLOXNano as Exp

__all__ = ["Exp"]
