"""Exp: the typed recipe of a run, and the files and names that it is loaded from."""

from yolox.exp.fields import ExpError
from yolox.exp.load import get_exp
from yolox.exp.models import use_model
from yolox.exp.voc import VOCExp
from yolox.exp.yolo import YOLOExp
from yolox.exp.yolox_base import Exp

__all__ = ["Exp", "ExpError", "VOCExp", "YOLOExp", "get_exp", "use_model"]
