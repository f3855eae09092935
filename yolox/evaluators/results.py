"""What an evaluation found, as data and as text for a log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from yolox.evaluators.evaluator import Timing

__all__ = ["ClassRow", "EvalResult"]


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
        voc: ``voc07_ap50_95``, ``voc07_ap50``, ``voc07_ap75`` (11-point rule) and the same with
            ``voc12`` (area rule).
        per_class: by class index.
        timing: of the inference.
    """

    headline: Literal["coco", "voc07", "voc12"]
    ap50_95: float
    ap50: float
    coco: Mapping[str, float | None]
    voc: Mapping[str, float | None]
    per_class: tuple[ClassRow, ...]
    timing: Timing

    def summary(self, *, per_class_ap: bool = True, per_class_ar: bool = False) -> str:
        """The result as lines of plain text; ``n/a`` where there is nothing to average."""
        coco, voc = self.coco, self.voc
        lines = [
            f"COCO: AP50-95 {_cell(coco['ap50_95'])}  AP50 {_cell(coco['ap50'])}"
            f"  AP75 {_cell(coco['ap75'])}  (small {_cell(coco['ap_small'])}"
            f"  medium {_cell(coco['ap_medium'])}  large {_cell(coco['ap_large'])})",
            *(
                f"{label}: AP50-95 {_cell(voc[f'{rule}_ap50_95'])}"
                f"  AP50 {_cell(voc[f'{rule}_ap50'])}  AP75 {_cell(voc[f'{rule}_ap75'])}"
                for rule, label in (("voc07", "VOC 11-point"), ("voc12", "VOC area"))
            ),
            f"forward {self.timing.forward_ms:.2f} ms/image, NMS"
            f" {self.timing.postprocess_ms:.2f} ms/image (mean of {self.timing.images} images)",
        ]
        if per_class_ap or per_class_ar:
            lines += self._class_table(per_class_ap, per_class_ar)
        return "\n".join(lines)

    def _class_table(self, per_class_ap: bool, per_class_ar: bool) -> list[str]:
        title = {"coco": "COCO", "voc07": "VOC 11-point", "voc12": "VOC area"}[self.headline]
        width = max(len("class"), *(len(row.name) for row in self.per_class))
        header = f"{'class':<{width}}  {'objects':>7}"
        header += f"  {'AP50-95':>7}  {'AP50':>7}" if per_class_ap else ""
        header += f"  {'AR50-95':>7}" if per_class_ar else ""
        lines = [f"by class ({title}):", header]
        for row in self.per_class:
            line = f"{row.name:<{width}}  {row.objects:>7}"
            line += f"  {_cell(row.ap50_95):>7}  {_cell(row.ap50):>7}" if per_class_ap else ""
            line += f"  {_cell(row.ar50_95):>7}" if per_class_ar else ""
            lines.append(line)
        return lines


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
