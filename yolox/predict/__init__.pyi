"""A checkpoint or an exported file, and pictures in any form → detections."""

from .detector import BATCH_SIZE, TILE_BATCH_SIZE, Detector
from .opening import load
from .prediction import Prediction

__all__ = ["BATCH_SIZE", "TILE_BATCH_SIZE", "Detector", "Prediction", "load"]
