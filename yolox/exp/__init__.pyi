"""Exp: the typed recipe of a run, and the files and names that it is loaded from."""

from .fields import ExpError
from .load import get_exp
from .models import use_model
from .voc import VOCExp
from .yolo import YOLOExp
from .yolox_base import Exp

__all__ = ["Exp", "ExpError", "VOCExp", "YOLOExp", "get_exp", "use_model"]
