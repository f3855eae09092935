"""YOLOX-l on data in the VOC layout."""

from yolox.exp.default import YOLOXL as Exp

__all__ = ["Exp"]
