"""The data doctor: what is in a data set, and what is wrong with it, before training finds out."""

from yolox.data.doctor.examine import check, quick_check
from yolox.data.doctor.facts import Facts, ImageFacts, inspect_image, inspect_images
from yolox.data.doctor.find import LocatedData, find_splits, locate
from yolox.data.doctor.report import ClassStats, Finding, Report, SplitStats

__all__ = [
    "ClassStats",
    "Facts",
    "Finding",
    "ImageFacts",
    "LocatedData",
    "Report",
    "SplitStats",
    "check",
    "find_splits",
    "inspect_image",
    "inspect_images",
    "locate",
    "quick_check",
]
