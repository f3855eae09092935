"""Exp: the typed recipe that builds models, data, optimizer and trainer."""

from yolox.exp.build import TrainOptions, build_trainer, get_exp
from yolox.exp.voc import VOCExp
from yolox.exp.yolox_base import Exp, ExpError

__all__ = ["Exp", "ExpError", "TrainOptions", "VOCExp", "build_trainer", "get_exp"]
