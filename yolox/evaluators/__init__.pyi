"""Evaluation: one timed inference loop, and metrics, curves and confusion of its results."""

from .bootstrap import FEWEST_IMAGES, Difference, Spread, ap_draws, ap_spreads, difference_of
from .coco_evaluator import COCOEvaluator, Evaluator, Inference
from .coco_metric import DETECTION_LIMIT, COCOResult, evaluate_coco, objects_beyond_limit
from .confusion import Confusion, confusion_table
from .curves import Curves, OperatingPoint, precision_recall_curves
from .detections import coco_rows, gather_detections
from .evaluator import (
    EvalDataset,
    EvalSample,
    ImageDetections,
    Timing,
    run_inference,
)
from .plots import save_confusion, save_f1, save_precision_recall
from .results import ClassRow, EvalResult, evaluate_detections
from .voc_evaluator import VOCEvaluator
from .voc_metric import VOCResult, evaluate_voc

__all__ = [
    "DETECTION_LIMIT",
    "FEWEST_IMAGES",
    "COCOEvaluator",
    "COCOResult",
    "ClassRow",
    "Confusion",
    "Curves",
    "Difference",
    "EvalDataset",
    "EvalResult",
    "EvalSample",
    "Evaluator",
    "ImageDetections",
    "Inference",
    "OperatingPoint",
    "Spread",
    "Timing",
    "VOCEvaluator",
    "VOCResult",
    "ap_draws",
    "ap_spreads",
    "coco_rows",
    "confusion_table",
    "difference_of",
    "evaluate_coco",
    "evaluate_detections",
    "evaluate_voc",
    "gather_detections",
    "objects_beyond_limit",
    "precision_recall_curves",
    "run_inference",
    "save_confusion",
    "save_f1",
    "save_precision_recall",
]
