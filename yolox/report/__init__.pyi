"""A report that can be sent: one HTML file, made from plain values."""

from .data import (
    ClassRow,
    Curve,
    Fact,
    Histogram,
    Latency,
    LayerBar,
    ModelRow,
    Pair,
    Picture,
    Report,
    ScaleHistograms,
)
from .differences import Difference, above_score, differences, most_different
from .pictures import draw_picture
from .render import render, save_report

__all__ = [
    "ClassRow",
    "Curve",
    "Difference",
    "Fact",
    "Histogram",
    "Latency",
    "LayerBar",
    "ModelRow",
    "Pair",
    "Picture",
    "Report",
    "ScaleHistograms",
    "above_score",
    "differences",
    "draw_picture",
    "most_different",
    "render",
    "save_report",
]
