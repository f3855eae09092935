"""Readers and training samples."""

from yolox.data.datasets.coco_classes import COCO_CLASSES
from yolox.data.datasets.mosaicdetection import MosaicDetection
from yolox.data.datasets.sample import DetectionDataset, Sample
from yolox.data.datasets.voc import VOCDetection, resolve_classes
from yolox.data.datasets.voc_classes import VOC_CLASSES

__all__ = [
    "COCO_CLASSES",
    "VOC_CLASSES",
    "DetectionDataset",
    "MosaicDetection",
    "Sample",
    "VOCDetection",
    "resolve_classes",
]
