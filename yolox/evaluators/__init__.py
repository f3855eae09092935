"""Evaluation: one timed inference loop, COCO and VOC metrics on what it returns."""

from yolox.evaluators.coco_evaluator import COCOEvaluator, Evaluator
from yolox.evaluators.coco_metric import COCOResult, evaluate_coco
from yolox.evaluators.evaluator import (
    EvalDataset,
    EvalSample,
    ImageDetections,
    Timing,
    run_inference,
)
from yolox.evaluators.results import ClassRow, EvalResult
from yolox.evaluators.voc_evaluator import VOCEvaluator
from yolox.evaluators.voc_metric import VOCResult, evaluate_voc

__all__ = [
    "COCOEvaluator",
    "COCOResult",
    "ClassRow",
    "EvalDataset",
    "EvalResult",
    "EvalSample",
    "Evaluator",
    "ImageDetections",
    "Timing",
    "VOCEvaluator",
    "VOCResult",
    "evaluate_coco",
    "evaluate_voc",
    "run_inference",
]
