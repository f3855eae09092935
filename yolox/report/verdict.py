"""What a report comes to, in one sentence: how much smaller, how much faster, at what cost."""

from __future__ import annotations

from dataclasses import dataclass

from yolox.report.data import ModelRow, Report
from yolox.report.formats import ap, change, share, speed_up

__all__ = ["Judgement", "below_the_cut", "judge", "slower_settings"]

KEPT_LOSS = 0.01  # AP50-95 that a model may lose and still count as one that kept it
FAILED_SHARE = 0.8  # of the AP before; one that keeps less replaces nothing

_TO = "\N{NO-BREAK SPACE}→ "  # the arrow ends a line, it begins none
_LABELS = {
    "kept": "Accuracy kept",
    "price": "At a price",
    "failed": "Failed",
    "unknown": "Accuracy not measured",
}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on the model after.

    Attributes:
        kind: ``kept`` where AP50-95 fell by at most 0.01; ``failed`` where less than four fifths of
            it are left; ``price`` between the two, or where the model is slower; ``unknown``
            without AP.
        label: the kind as a person reads it.
        sentence: the figures.
        remarks: sentences on what they mean.
    """

    kind: str
    sentence: str
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The kind in words."""
        return _LABELS[self.kind]


def judge(report: Report) -> Judgement | None:
    """The verdict on the model after; None where there is one model alone."""
    before, after = report.before, report.after
    if after is None:
        return None
    gains = [_faster(report, before, after), _smaller(before, after)]
    figures = [gain for gain in gains if gain]
    slower = slower_settings(report)
    remarks = [f"{after.label} is slower than {before.label} in {'; '.join(slower)}."]
    kind, cost = "unknown", ""
    if before.ap50_95 is not None and after.ap50_95 is not None:
        kind, cost = _accuracy(before.ap50_95, after.ap50_95)
        # What went wrong comes first.
        place = 0 if kind == "failed" else len(figures)
        figures.insert(place, f"AP {ap(before.ap50_95)}{_TO}{ap(after.ap50_95)}")
        if kind == "kept" and slower:
            kind = "price"
    remarks = [*([cost] if cost else []), *(remarks if slower else [])]
    if report.change_interval is not None:
        remarks.append(_sure(report.change_interval))
    sentence = ", ".join(figures) or f"{after.label} compared with {before.label}"
    return Judgement(kind=kind, sentence=sentence, remarks=tuple(remarks))


def slower_settings(report: Report) -> list[str]:
    """Settings in which the model after takes longer than the one before."""
    if report.after is None:
        return []
    pairs = {s: (report.before.ms(s), report.after.ms(s)) for s in report.settings}
    return [
        s for s, (old, new) in pairs.items() if old is not None and new is not None and new > old
    ]


def below_the_cut(report: Report) -> str:
    """A warning where the model after is worse than the pruned one that it was trained from.

    Empty where it is not, or where there is no model called ``pruned``.
    """
    cut = next((row for row in report.models if row.label == "pruned"), None)
    after = report.after
    if cut is None or after is None or cut.ap50_95 is None or after.ap50_95 is None:
        return ""
    if round(after.ap50_95, 3) >= round(cut.ap50_95, 3):
        return ""
    return (
        f"the end is below the cut: AP50-95 {ap(after.ap50_95)} after fine-tuning, "
        f"{ap(cut.ap50_95)} right after pruning. Fine-tuning did harm: train longer, or with a "
        "lower learning rate"
    )


def _accuracy(before: float, after: float) -> tuple[str, str]:
    lost = share(before - after, before) if 0 <= after < before else ""
    if after < FAILED_SHARE * before or after == 0:
        told = f"{lost} of the AP is lost" if lost else "Nothing is detected"
        return (
            "failed",
            f"{told}: this model does not replace the one before. Train longer, or cut less.",
        )
    if before - after <= KEPT_LOSS:
        return "kept", ""
    return "price", f"{lost} of the AP is lost."


def _faster(report: Report, before: ModelRow, after: ModelRow) -> str:
    """Of the first setting that both were measured in."""
    for setting in report.settings:
        old, new = before.ms(setting), after.ms(setting)
        if old is not None and new is not None:
            return speed_up(old, new)
    return ""


def _smaller(before: ModelRow, after: ModelRow) -> str:
    for name, old, new in (
        ("MACs", before.macs, after.macs),
        ("parameters", before.params, after.params),
    ):
        if old and new is not None:
            return f"{share(new, old)} of the {name}"
    return ""


def _sure(interval: tuple[float, float]) -> str:
    low, high = (change(0.0, end) for end in interval)
    told = f"On other images like these the change of AP would be from {low} to {high} (95 %)"
    if interval[0] < 0 < interval[1]:
        return f"{told}: they cannot tell the two models apart."
    return f"{told}."
