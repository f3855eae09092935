"""A YOLOX object detector with exact, verified structured channel pruning built in."""

from .api import compare, compress, evaluate, export_model, prune, train
from .exp import Exp, get_exp
from .predict import Detector, Prediction, load
from .utils import UserError

__version__: str

__all__ = [
    "Detector",
    "Exp",
    "Prediction",
    "UserError",
    "compare",
    "compress",
    "evaluate",
    "export_model",
    "get_exp",
    "load",
    "prune",
    "train",
]
