"""Pieces without a layer of their own: boxes, checkpoints, averages, schedules, logging."""

from .boxes import (
    bboxes_iou,
    cxcywh2xyxy,
    postprocess,
    xyxy2cxcywh,
    xyxy2xywh,
)
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .dist import (
    get_local_rank,
    get_rank,
    get_world_size,
    is_main_process,
    synchronize,
    wait_for_the_master,
)
from .ema import ModelEMA
from .errors import UserError
from .logger import setup_logger
from .lr_scheduler import LRScheduler, WarmupCosineSchedule
from .model_utils import (
    adjust_status,
    count_macs,
    count_params,
    freeze_module,
    fuse_model,
    get_model_info,
    is_parallel,
    load_ckpt,
    replace_module,
)
from .visualize import vis

__all__ = [
    "CheckpointError",
    "LRScheduler",
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
    "get_local_rank",
    "get_model_info",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "is_parallel",
    "load_checkpoint",
    "load_ckpt",
    "postprocess",
    "replace_module",
    "save_checkpoint",
    "setup_logger",
    "synchronize",
    "vis",
    "wait_for_the_master",
    "xyxy2cxcywh",
    "xyxy2xywh",
]
