"""Readers and training samples."""

from yolox.data.datasets.build import build_samples, require_objects, resolve_class_list
from yolox.data.datasets.coco import COCODataset, read_coco
from yolox.data.datasets.coco_classes import COCO_CLASSES
from yolox.data.datasets.coco_files import annotation_files
from yolox.data.datasets.known_classes import KnownOrder, known_order, rows_by_name
from yolox.data.datasets.mosaicdetection import MosaicDetection
from yolox.data.datasets.records import Problem, Record, RecordSet, Remark
from yolox.data.datasets.relabel import with_classes
from yolox.data.datasets.sample import DetectionDataset, Sample
from yolox.data.datasets.voc import AnnotationTransform, VOCDetection, read_voc, resolve_classes
from yolox.data.datasets.voc_classes import VOC_CLASSES
from yolox.data.datasets.yolo_txt import YOLODataset, read_yolo

__all__ = [
    "COCO_CLASSES",
    "VOC_CLASSES",
    "AnnotationTransform",
    "COCODataset",
    "DetectionDataset",
    "KnownOrder",
    "MosaicDetection",
    "Problem",
    "Record",
    "RecordSet",
    "Remark",
    "Sample",
    "VOCDetection",
    "YOLODataset",
    "annotation_files",
    "build_samples",
    "known_order",
    "read_coco",
    "read_voc",
    "read_yolo",
    "require_objects",
    "resolve_class_list",
    "resolve_classes",
    "rows_by_name",
    "with_classes",
]
