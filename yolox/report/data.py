"""What a report tells, as plain values; every section may be empty and is left out then."""

from __future__ import annotations

from dataclasses import dataclass

from yolox.utils.errors import UserError

__all__ = [
    "ROLES",
    "ClassRow",
    "Curve",
    "Fact",
    "Histogram",
    "Latency",
    "LayerBar",
    "Mark",
    "ModelRow",
    "Pair",
    "Picture",
    "Report",
    "ScaleHistograms",
]

ROLES = ("", "before", "after")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A line of a list: what, and how much of it, as texts."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Measured time of a run.

    Attributes:
        setting: runtime, threads and batch as a column's title: ``onnxruntime, 1 thread``. Equal
            settings compare.
        ms: median milliseconds.
    """

    setting: str
    ms: float


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A model of the comparison; None where a figure is not known.

    Attributes:
        label: its name in tables and diagrams, unique in a report.
        role: ``before`` and ``after`` name the two that are compared; the others have none.
        params: number of parameters.
        macs: multiply-accumulates of an image.
        file_bytes: size of its file, without what training resumes from.
        training_bytes: of that, which is the optimizer's and is not shipped.
        ap50_95, ap50: in [0, 1].
        ap_interval: where AP50-95 would be on other images like these, lowest and highest.
        training: what it was trained for, and from what; empty where that is not known.
        latencies: one a setting.
    """

    label: str
    role: str = ""
    params: int | None = None
    macs: int | None = None
    file_bytes: int | None = None
    training_bytes: int = 0
    ap50_95: float | None = None
    ap50: float | None = None
    ap_interval: tuple[float, float] | None = None
    training: str = ""
    latencies: tuple[Latency, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UserError(f"report: role of {self.label!r}: expected one of {ROLES}")

    def ms(self, setting: str) -> float | None:
        """Median milliseconds in a setting, None where it was not measured."""
        return next((found.ms for found in self.latencies if found.setting == setting), None)


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """AP50-95 of a class in [0, 1], None where it has no object that counts; and their number."""

    name: str
    objects: int
    before: float | None
    after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision at evenly spaced recalls from 0 to 1, before and after.

    Attributes:
        name: the class, or what the mean is of.
        objects: that count.
        before, after: precision in [0, 1], at least two values; ``after`` may be empty.
    """

    name: str
    objects: int
    before: tuple[float, ...]
    after: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LayerBar:
    """A convolution in network order: where it is, its output channels before and after.

    Attributes:
        name: of the module.
        part, stage: of the network, and of that part.
        before, after: output channels.
    """

    name: str
    part: str
    stage: str = ""
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many channels a model has in each bin, and the median of all."""

    label: str
    counts: tuple[int, ...]
    median: float


@dataclass(frozen=True, kw_only=True)
class ScaleHistograms:
    """The |γ| of batch norms, one or two models over the same bins.

    Attributes:
        edges: rising, one more than there are counts.
        models: before, after.
    """

    edges: tuple[float, ...]
    models: tuple[Histogram, ...]

    def __post_init__(self) -> None:
        if any(len(model.counts) + 1 != len(self.edges) for model in self.models):
            raise UserError("report: a histogram needs one edge more than it has counts")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box that stands out.

    Attributes:
        box: xyxy, pixels of the picture.
        name: class and score.
    """

    box: tuple[float, float, float, float]
    name: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image in the file itself.

    Attributes:
        label: what it shows.
        uri: ``data:image/…``; nothing is ever fetched.
        width, height: pixels.
        found: number of boxes drawn.
        marks: those of them that the other model has not.
    """

    label: str
    uri: str
    width: int
    height: int
    found: int
    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        if not self.uri.startswith("data:image/"):
            raise UserError("report: a picture must be a data:image/ URI, part of the file itself")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image as several see it.

    Attributes:
        name: of the image.
        lost, gained: detections that only the model before, only the one after has.
        difference: what they score together.
        pictures: before, after and maybe the ground truth.
    """

    name: str
    lost: int
    gained: int
    difference: float
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report says.

    Attributes:
        title: of the page.
        date: ISO 8601.
        models: in the table's order; one is ``before``, and ``after`` is at most one.
        measured_on: the machine that the latencies are of; empty where it is not known.
        data: what AP was measured on, a sentence; empty where it was not.
        dataset: the name of those data.
        input_size: height and width that the models take, as a text.
        certainty: how sure AP is, sentences.
        change_interval: where the change of AP50-95 would be on other images like these.
        asked: target, budget, criterion and so on.
        classes: by class index.
        curves: precision and recall at IoU 0.5; the mean first.
        layers: in network order.
        scales: |γ| of batch norms.
        pairs: those that differ most first.
        score: least score of the detections in `pairs`.
        commands: that do it again, in order.
        versions: of what took part, and the machine.
    """

    title: str
    date: str
    models: tuple[ModelRow, ...]
    measured_on: str = ""
    data: str = ""
    dataset: str = ""
    input_size: str = ""
    certainty: str = ""
    change_interval: tuple[float, float] | None = None
    asked: tuple[Fact, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    layers: tuple[LayerBar, ...] = ()
    scales: ScaleHistograms | None = None
    pairs: tuple[Pair, ...] = ()
    score: float = 0.0
    commands: tuple[str, ...] = ()
    versions: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        roles = [row.role for row in self.models]
        if roles.count("before") != 1 or roles.count("after") > 1:
            problems.append("expected one model with the role before and at most one with after")
        labels = [row.label for row in self.models]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            problems.append(f"two models share a label: {', '.join(twice)}")
        if problems:
            raise UserError("report: " + "; ".join(problems))

    @property
    def before(self) -> ModelRow:
        """The model that the others are compared with."""
        return next(row for row in self.models if row.role == "before")

    @property
    def after(self) -> ModelRow | None:
        """What became of it, None where there is one model alone."""
        return next((row for row in self.models if row.role == "after"), None)

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings that a latency was measured in, in the order of the models."""
        return tuple(dict.fromkeys(found.setting for row in self.models for found in row.latencies))
