"""All figures of one evaluation: computed, as a table for people, as plain values for files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from yolox.evaluators.coco_metric import DETECTION_LIMIT, evaluate_coco, objects_beyond_limit
from yolox.evaluators.evaluator import EvalSample, ImageDetections, Timing
from yolox.evaluators.precision import IOU_THRESHOLDS
from yolox.evaluators.voc_metric import evaluate_voc
from yolox.utils.printable import printable

__all__ = ["ClassRow", "EvalResult", "Headline", "Order", "evaluate_detections"]

Headline = Literal["coco", "voc07", "voc12"]
Order = Literal["class", "ap", "objects"]

_AT_50, _AT_75 = IOU_THRESHOLDS.index(0.5), IOU_THRESHOLDS.index(0.75)


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class. AP and AR in [0, 1], None for a class without an object that counts.

    Attributes:
        name: of the class.
        objects: ground truths that count, i.e. are not difficult.
        ap50_95, ap50: by the headline's rule.
        ar50_95: COCO recall with at most 100 detections an image.
    """

    name: str
    objects: int
    ap50_95: float | None
    ap50: float | None
    ar50_95: float | None


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """All figures of one evaluation; AP in [0, 1].

    Attributes:
        headline: the rule that ``ap50_95``, ``ap50`` and ``per_class`` follow.
        ap50_95: mean AP over IoU 0.50, 0.55, ..., 0.95 and over the classes that have objects. NaN
            when nothing is annotated, which only a test-dev evaluation allows.
        ap50: likewise at IoU 0.5.
        coco: ``ap50_95``, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large``,
            ``ar50_95``; None where no object is of that kind.
        objects: those that count, by COCO's sizes ``small``, ``medium``, ``large``.
        beyond_coco_limit: objects that count as missed in ``coco`` whatever is found, see
            `objects_beyond_limit`.
        coco_tools: name of the library that computed ``coco``.
        voc: ``voc07_ap50_95``, ``voc07_ap50``, ``voc07_ap75`` (11-point rule) and the same with
            ``voc12`` (area rule).
        per_class: by class index.
        timing: of the inference.
    """

    headline: Headline
    ap50_95: float
    ap50: float
    coco: Mapping[str, float | None]
    objects: Mapping[str, int]
    beyond_coco_limit: int
    coco_tools: str
    voc: Mapping[str, float | None]
    per_class: tuple[ClassRow, ...]
    timing: Timing

    def summary(
        self, *, per_class_ap: bool = True, per_class_ar: bool = False, order: Order = "class"
    ) -> str:
        """The result as lines of plain text; ``n/a`` where there is nothing to average.

        Args:
            per_class_ap: list AP in the table by class.
            per_class_ar: list AR there; with neither there is no table.
            order: of the table: by class index, or the highest AP50-95 or most objects first.
        """
        coco, voc = self.coco, self.voc
        lines = [
            f"COCO: AP50-95 {_cell(coco['ap50_95'])}  AP50 {_cell(coco['ap50'])}"
            f"  AP75 {_cell(coco['ap75'])}  AR50-95 {_cell(coco['ar50_95'])}  ({self.coco_tools})",
            *(
                [
                    f"  looks at {DETECTION_LIMIT} detections of a class in an image:"
                    f" {self.beyond_coco_limit:,} of {sum(row.objects for row in self.per_class):,}"
                    " objects are beyond that and count as missed; VOC's rules look at all"
                ]
                if self.beyond_coco_limit
                else []
            ),
            "by size: "
            + "  ".join(
                f"{size} {_cell(coco[f'ap_{size}'])} ({count:,} objects)"
                for size, count in self.objects.items()
            ),
            *(
                f"{label}: AP50-95 {_cell(voc[f'{rule}_ap50_95'])}"
                f"  AP50 {_cell(voc[f'{rule}_ap50'])}  AP75 {_cell(voc[f'{rule}_ap75'])}"
                for rule, label in (("voc07", "VOC 11-point"), ("voc12", "VOC area"))
            ),
            f"forward {self.timing.forward_ms:.2f} ms/image, NMS"
            f" {self.timing.postprocess_ms:.2f} ms/image (mean of {self.timing.images} images)",
        ]
        if per_class_ap or per_class_ar:
            lines += self._class_table(per_class_ap, per_class_ar, order)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: NaN, which JSON has not, becomes None."""
        values = asdict(self)
        for key in ("ap50_95", "ap50"):
            values[key] = None if np.isnan(values[key]) else values[key]
        return values

    def _class_table(self, per_class_ap: bool, per_class_ar: bool, order: Order) -> list[str]:
        title = {"coco": "COCO", "voc07": "VOC 11-point", "voc12": "VOC area"}[self.headline]
        width = max(len("class"), *(len(printable(row.name)) for row in self.per_class))
        header = f"{'class':<{width}}  {'objects':>7}"
        header += f"  {'AP50-95':>7}  {'AP50':>7}" if per_class_ap else ""
        header += f"  {'AR50-95':>7}" if per_class_ar else ""
        lines = [f"by class ({title}):", header]
        for row in self._rows(order):
            line = f"{printable(row.name):<{width}}  {row.objects:>7}"
            line += f"  {_cell(row.ap50_95):>7}  {_cell(row.ap50):>7}" if per_class_ap else ""
            line += f"  {_cell(row.ar50_95):>7}" if per_class_ar else ""
            lines.append(line)
        return lines

    def _rows(self, order: Order) -> list[ClassRow]:
        rows = list(self.per_class)
        if order == "ap":
            rows.sort(key=lambda row: -1.0 if row.ap50_95 is None else row.ap50_95, reverse=True)
        elif order == "objects":
            rows.sort(key=lambda row: row.objects, reverse=True)
        return rows


def evaluate_detections(
    samples: Sequence[EvalSample],
    detections: Sequence[ImageDetections],
    class_names: Sequence[str],
    *,
    headline: Headline,
    timing: Timing,
) -> EvalResult:
    """Every figure, by COCO's and VOC's rules.

    Args:
        samples: the annotated images.
        detections: at most one entry an image; an image without one has no detections.
        class_names: by class index.
        headline: the rule of the main figures and of the table by class.
        timing: of the inference.

    Raises:
        ValueError: for an entry whose image is not among ``samples``, or a second one of an image.
    """
    coco = evaluate_coco(samples, detections, len(class_names))
    voc = evaluate_voc(samples, detections, len(class_names), IOU_THRESHOLDS)
    voc_means: dict[str, float | None] = {}
    for rule, ap_TC in (("voc07", voc.ap_11point), ("voc12", voc.ap_area)):
        voc_means[f"{rule}_ap50_95"] = _mean(ap_TC)
        voc_means[f"{rule}_ap50"] = _mean(ap_TC[_AT_50])
        voc_means[f"{rule}_ap75"] = _mean(ap_TC[_AT_75])
    if headline == "coco":
        ap50_95, ap50 = coco.metrics["ap50_95"], coco.metrics["ap50"]
        by_class = [(row.ap50_95, row.ap50) for row in coco.per_class]
    else:
        ap_TC = voc.ap_11point if headline == "voc07" else voc.ap_area
        ap50_95, ap50 = _mean(ap_TC), _mean(ap_TC[_AT_50])
        by_class = [(_mean(ap_TC[:, c]), _mean(ap_TC[_AT_50, c])) for c in range(ap_TC.shape[1])]
    rows = tuple(
        ClassRow(
            name=name,
            objects=int(voc.gt_counts[c]),
            ap50_95=by_class[c][0],
            ap50=by_class[c][1],
            ar50_95=coco.per_class[c].ar50_95,
        )
        for c, name in enumerate(class_names)
    )
    return EvalResult(
        headline=headline,
        ap50_95=float("nan") if ap50_95 is None else ap50_95,
        ap50=float("nan") if ap50 is None else ap50,
        coco=coco.metrics,
        objects=coco.objects,
        beyond_coco_limit=objects_beyond_limit(samples),
        coco_tools=coco.tools,
        voc=voc_means,
        per_class=rows,
        timing=timing,
    )


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """Mean of what is defined, None when nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
