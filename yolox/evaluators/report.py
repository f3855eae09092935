"""A folder of figures and pictures of one evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolox.evaluators.confusion import Confusion, confusion_table
from yolox.evaluators.curves import Curves, OperatingPoint, precision_recall_curves
from yolox.evaluators.evaluator import EvalSample, ImageDetections
from yolox.evaluators.plots import save_confusion, save_f1, save_precision_recall
from yolox.evaluators.results import EvalResult
from yolox.utils.files import replacing

__all__ = ["write_report"]


def write_report(
    folder: Path,
    result: EvalResult,
    samples: Sequence[EvalSample],
    detections: Sequence[ImageDetections],
    about: Mapping[str, Any],
) -> OperatingPoint | None:
    """Write ``metrics.json``, ``precision_recall.png``, ``f1.png`` and ``confusion.png``.

    The confusion matrix is counted at the score that gives the best mean F1 at IoU 0.5.

    Args:
        folder: made if need be; files of these names in it are replaced.
        result: the figures of ``detections`` on ``samples``.
        samples: as :func:`precision_recall_curves` takes them.
        detections: of the same images, likewise.
        about: what was evaluated, how and where; goes into ``metrics.json`` as it is. The pictures
            name its ``checkpoint``, ``data`` and ``test_size``.

    Returns:
        What that score gives; None where nothing was found: the confusion matrix is counted
        at 0.5 then.

    Raises:
        UserError: when the folder cannot be written to.
    """
    names = [row.name for row in result.per_class]
    curves = precision_recall_curves(samples, detections, len(names))
    best = curves[0].best_overall()
    score = best.score if best else 0.5
    confusion = confusion_table(samples, detections, len(names), score=score)
    subject = _subject(about, len(samples))
    save_precision_recall(folder / "precision_recall.png", curves, names, subject)
    save_f1(folder / "f1.png", curves[0], names, subject)
    save_confusion(folder / "confusion.png", confusion, names, subject)
    content = {
        **about,
        "result": result.to_dict(),
        "curves": [_curve_values(curve, names) for curve in curves],
        "confusion": _confusion_values(confusion, names),
    }
    with replacing(folder / "metrics.json") as temporary:
        text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return best


def _subject(about: Mapping[str, Any], images: int) -> str:
    """Model and data in a line: the file with its folder, and the split."""
    parts = []
    if source := about.get("checkpoint"):
        parts.append("/".join(Path(source).parts[-2:]))
    parts.append(
        f"on {about['data']}, {images:,} image{'' if images == 1 else 's'}"
        if "data" in about
        else ""
    )
    if size := about.get("test_size"):
        parts.append(f"at {'×'.join(map(str, size))}")
    return " ".join(parts)


def _curve_values(curves: Curves, names: Sequence[str]) -> dict[str, Any]:
    return {
        "iou": curves.iou,
        "best": _point(curves.best_overall()),
        "classes": [
            {
                "name": name,
                "objects": int(curves.objects[c]),
                "ap": curves.ap(c),
                "best": _point(curves.best(c)),
                "precision_at_recall": None
                if np.isnan(curves.precision_at_recall[c]).any()
                else curves.precision_at_recall[c].round(6).tolist(),
            }
            for c, name in enumerate(names)
        ],
    }


def _confusion_values(confusion: Confusion, names: Sequence[str]) -> dict[str, Any]:
    return {
        "score": confusion.score,
        "iou": confusion.iou,
        "annotated": [*names, "nothing there"],
        "predicted": [*names, "missed"],
        "counts": confusion.counts.tolist(),
    }


def _point(point: OperatingPoint | None) -> dict[str, float] | None:
    return vars(point) if point else None
