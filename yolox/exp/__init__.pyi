"""Exp: the typed recipe that builds models, data, optimizer and trainer."""

from .fields import ExpError
from .load import get_exp
from .models import use_model
from .voc import DOTAExp, VOCExp
from .yolo import YOLOExp
from .yolox_base import Exp

__all__ = [
    "DOTAExp",
    "Exp",
    "ExpError",
    "VOCExp",
    "YOLOExp",
    "get_exp",
    "use_model",
]
