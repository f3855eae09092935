"""What a model is made of, as values for a report: channels of its layers, scales of its norms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from yolox.models import channel_table
from yolox.report import Histogram, LayerBar, ScaleHistograms
from yolox.utils.model_utils import batch_norm_scales

__all__ = ["layer_bars", "scale_histograms"]

_BINS = 48


def layer_bars(before: nn.Module, after: nn.Module) -> tuple[LayerBar, ...]:
    """Output channels of each convolution; empty for other layers or the same channels."""
    old, new = channel_table(before), channel_table(after)
    if old.keys() != new.keys() or old == new:
        return ()
    return tuple(
        LayerBar(
            name=name,
            part=_part(name),
            stage=_stage(name),
            before=row[1],
            after=new[name][1],
        )
        for name, row in old.items()
    )


def scale_histograms(models: Mapping[str, nn.Module]) -> ScaleHistograms | None:
    """|γ| of all batch norms of each model by its label; None where a model has no batch norm."""
    values = {
        label: np.concatenate([np.zeros(0), *batch_norm_scales(model).values()])
        for label, model in models.items()
    }
    if not values or any(not len(scales) for scales in values.values()):
        return None
    top = max(float(scales.max()) for scales in values.values()) or 1.0
    edges = np.linspace(0, top, _BINS + 1)
    return ScaleHistograms(
        edges=tuple(edges.tolist()),
        models=tuple(
            Histogram(
                label=label,
                counts=tuple(np.histogram(scales, edges)[0].tolist()),
                median=float(np.median(scales)),
            )
            for label, scales in values.items()
        ),
    )


def _part(name: str) -> str:
    if name.startswith("backbone."):
        return "backbone" if name.startswith("backbone.backbone.") else "neck"
    return "head" if name.startswith("head.") else "model"


def _stage(name: str) -> str:
    """The column that a convolution stands in: a module of its part, in the head a stride."""
    part, *path = name.split(".")
    if part == "head" and len(path) > 1 and path[1].isdecimal():
        return f"stride {8 * 2 ** int(path[1])}"
    return path[1] if path[:1] == ["backbone"] and len(path) > 1 else path[0] if path else part
