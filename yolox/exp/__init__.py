"""Exp: the typed recipe that builds models, data, optimizer and trainer."""

from yolox.exp.build import build_trainer
from yolox.exp.default import use_model
from yolox.exp.fields import ExpError
from yolox.exp.load import get_exp
from yolox.exp.start import TrainOptions
from yolox.exp.voc import VOCExp
from yolox.exp.yolo import YOLOExp
from yolox.exp.yolox_base import Exp

__all__ = [
    "Exp",
    "ExpError",
    "TrainOptions",
    "VOCExp",
    "YOLOExp",
    "build_trainer",
    "get_exp",
    "use_model",
]
