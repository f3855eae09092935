"""A report that can be sent: one HTML file, made from plain values."""

from .data import (
    ClassRow,
    Curve,
    Fact,
    Histogram,
    Latency,
    LayerBar,
    Mark,
    ModelRow,
    Pair,
    Picture,
    Report,
    ScaleHistograms,
)
from .differences import Difference, above_score, differences, most_different
from .pictures import draw_picture
from .render import render, save_report
from .terminal import summary_table
from .verdict import Judgement, below_the_cut, judge

__all__ = [
    "ClassRow",
    "Curve",
    "Difference",
    "Fact",
    "Histogram",
    "Judgement",
    "Latency",
    "LayerBar",
    "Mark",
    "ModelRow",
    "Pair",
    "Picture",
    "Report",
    "ScaleHistograms",
    "above_score",
    "below_the_cut",
    "differences",
    "draw_picture",
    "judge",
    "most_different",
    "render",
    "save_report",
    "summary_table",
]
