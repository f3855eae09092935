"""YOLOX-m on data in the VOC layout."""

from yolox.exp.default import YOLOXM as Exp

__all__ = ["Exp"]
