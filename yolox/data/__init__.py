"""Data sets, augmentation, loaders."""

from yolox.data.data_augment import TrainTransform, ValTransform, preproc
from yolox.data.dataloading import (
    TrainLoader,
    build_eval_loader,
    build_train_loader,
    get_yolox_datadir,
)
from yolox.data.datasets import (
    COCO_CLASSES,
    VOC_CLASSES,
    DetectionDataset,
    MosaicDetection,
    Sample,
    VOCDetection,
    resolve_classes,
)
from yolox.data.errors import DataError
from yolox.data.samplers import Draw, TrainBatchSampler
from yolox.data.synthetic import generate_demo_dataset

__all__ = [
    "COCO_CLASSES",
    "VOC_CLASSES",
    "DataError",
    "DetectionDataset",
    "Draw",
    "MosaicDetection",
    "Sample",
    "TrainBatchSampler",
    "TrainLoader",
    "TrainTransform",
    "VOCDetection",
    "ValTransform",
    "build_eval_loader",
    "build_train_loader",
    "generate_demo_dataset",
    "get_yolox_datadir",
    "preproc",
    "resolve_classes",
]
