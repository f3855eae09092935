"""How sure the APs of a report are, over the choice of evaluation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from yolox.evaluators import Evaluator, ImageDetections, Spread, ap_spreads

__all__ = ["Certainty", "certainty_of"]

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """What is known of it.

    Attributes:
        intervals: of AP50-95, one a model; None where there is none.
        change: that of the last model's minus the first one's.
        text: what the intervals mean, or why there are none.
    """

    intervals: tuple[Interval | None, ...]
    change: Interval | None = None
    text: str = ""


def certainty_of(
    evaluator: Evaluator | None,
    detections: Sequence[Sequence[ImageDetections]],
    aps: Sequence[float | None],
) -> Certainty:
    """Intervals of AP50-95 over other images like these.

    Args:
        evaluator: of the data; None where nothing was evaluated.
        detections: of each model.
        aps: AP50-95 of each.
    """
    nothing = (None,) * len(aps)
    if evaluator is None:
        return Certainty(intervals=nothing)
    dataset = evaluator.dataset
    split = f"AP is of one split of {len(dataset.samples):,} images"
    found = ap_spreads(dataset.samples, detections, len(dataset.class_names), evaluator.headline)
    if found is None or None in aps:
        why = f"{split}, too few to say how certain it is, and each model was trained once."
        return Certainty(intervals=nothing, text=why)
    spreads, difference = found
    known = [ap for ap in aps if ap is not None]
    return Certainty(
        intervals=tuple(
            _around(ap, spread, 0.0) for ap, spread in zip(known, spreads, strict=True)
        ),
        change=_around(known[-1] - known[0], difference, -1.0) if len(known) > 1 else None,
        text=f"{split}, and each model was trained once. If the images are drawn again with "
        "replacement (bootstrap), 95 % of the draws lie in these intervals; of another training "
        "they say nothing.",
    )


def _around(value: float, spread: Spread, least: float) -> Interval:
    return max(value + spread.low, least), min(value + spread.high, 1.0)
