"""YOLOX-x on data in the VOC layout."""

from yolox.exp.default import YOLOXX as Exp

__all__ = ["Exp"]
