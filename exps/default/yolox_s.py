"""YOLOX-s on data in the VOC layout."""

from yolox.exp.default import YOLOXS as Exp

__all__ = ["Exp"]
