"""Pieces without a layer of their own: boxes, checkpoints, averages, schedules, logging."""

from yolox.utils.boxes import (
    bboxes_iou,
    cxcywh2xyxy,
    postprocess,
    xyxy2cxcywh,
    xyxy2xywh,
)
from yolox.utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from yolox.utils.ema import ModelEMA
from yolox.utils.errors import UserError
from yolox.utils.logger import setup_logger
from yolox.utils.lr_scheduler import WarmupCosineSchedule
from yolox.utils.model_utils import (
    adjust_status,
    count_macs,
    count_params,
    freeze_module,
    fuse_model,
)
from yolox.utils.visualize import vis

__all__ = [
    "CheckpointError",
    "ModelEMA",
    "UserError",
    "WarmupCosineSchedule",
    "adjust_status",
    "bboxes_iou",
    "count_macs",
    "count_params",
    "cxcywh2xyxy",
    "freeze_module",
    "fuse_model",
    "load_checkpoint",
    "postprocess",
    "save_checkpoint",
    "setup_logger",
    "vis",
    "xyxy2cxcywh",
    "xyxy2xywh",
]
