"""From checkpoints and an Exp to a report: evaluated once each, counted, read, put side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import nn

from yolox.bench.guest import Guest, Guests
from yolox.bench.plan import file_bytes
from yolox.evaluators import (
    Curves,
    EvalResult,
    Evaluator,
    ImageDetections,
    precision_recall_curves,
)
from yolox.exp.follow import follow_checkpoint
from yolox.exp.yolox_base import Exp
from yolox.export import ExportedModel, is_exported, open_exported
from yolox.jobs.evaluate import infer
from yolox.jobs.report.certainty import Certainty, certainty_of
from yolox.jobs.report.pairs import shown_pairs
from yolox.jobs.report.provenance import pruning_facts, version_facts
from yolox.jobs.report.structure import layer_bars, scale_histograms
from yolox.jobs.report.training import training_bytes, training_facts
from yolox.models import LoadedModel, ModelSpec, load_model
from yolox.report import (
    ClassRow,
    Curve,
    Fact,
    LayerBar,
    ModelRow,
    Report,
)
from yolox.utils.checkpoint import file_digest
from yolox.utils.device import resolve_device
from yolox.utils.errors import UserError
from yolox.utils.files import short_names
from yolox.utils.model_utils import count_macs, count_params

__all__ = ["ReportSettings", "gather_report"]

_BATCH_SIZE = 16
_RULES = {"coco": "COCO's rule", "voc07": "VOC's 11-point rule", "voc12": "VOC's area rule"}


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report shows.

    Attributes:
        title: of the page; empty takes one from the Exp.
        labels: one a model; empty takes the ends of the paths that tell them apart.
        images: most images that are shown side by side, 0 for none.
        score: least score of the detections drawn on them, in [0, 1].
        measured: rows with latencies, which models of the same label take over; the others
            become rows of the report.
        measured_on: the machine that the latencies are of.
        openvino_precision: arithmetic of OpenVINO's files, as `open_exported` takes it.
        device: where models are evaluated, likewise.
        measured_size: and the input size, height and width; None where there are no latencies.
        asked: facts that go before those found in the checkpoints.
        commands: lines that do it again, in order.

    Raises:
        UserError: listing what cannot be.
    """

    title: str = ""
    labels: tuple[str, ...] = ()
    images: int = 6
    score: float = 0.3
    measured: tuple[ModelRow, ...] = ()
    measured_on: str = ""
    measured_size: tuple[int, int] | None = None
    openvino_precision: str = "f32"
    device: str = "auto"
    asked: tuple[Fact, ...] = ()
    commands: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.images < 0:
            problems.append(f"images must be at least 0, got {self.images}")
        if not 0 <= self.score <= 1:
            problems.append(f"score must be in [0, 1], got {self.score}")
        if problems:
            raise UserError("report: " + "; ".join(problems))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Model:
    """A model with all that was found out about it; without an evaluation the rest is empty.

    Attributes:
        sha256: of the file.
        network: what is evaluated: the checkpoint's model, or an exported file in its runtime.
        loaded: the checkpoint, None for an exported file.
        guest: what a file of another program holds; of other files None.
    """

    label: str
    path: Path
    sha256: str
    network: nn.Module
    spec: ModelSpec
    loaded: LoadedModel | None
    guest: Guest | None = None
    evaluator: Evaluator | None = None
    result: EvalResult | None = None
    detections: Sequence[ImageDetections] = ()

    @property
    def ap(self) -> float | None:
        """AP50-95, None where it is not known."""
        return _figure(self.result.ap50_95) if self.result else None

    @property
    def is_pruned(self) -> bool:
        """Whether it was, by its file."""
        if isinstance(self.network, ExportedModel):
            return self.network.info.pruned
        if self.guest is not None:
            return self.guest.pruned
        return self.loaded is not None and self.loaded.is_pruned

    @property
    def layers(self) -> nn.Module | None:
        """The model's own layers, None where it is an exported file."""
        if self.guest is not None:
            return self.guest.module()
        return None if self.loaded is None else self.loaded.model

    @property
    def prunings(self) -> Sequence[Mapping[str, Any]]:
        """What is recorded of each pruning."""
        if self.guest is not None:
            return self.guest.prunings()
        return [] if self.loaded is None else self.loaded.pruning


def gather_report(
    paths: Sequence[Path],
    exp: Exp | None,
    settings: ReportSettings,
    guests: Guests | None = None,
) -> Report:
    """Everything that a report says of these checkpoints.

    Each is evaluated once; of the first and the last the detections are
    kept. What does not apply is left out: with one checkpoint there is nothing to compare, and
    channels are compared of models with the same layers.

    Args:
        paths: checkpoints or exported files; the first is the model before, the last the one
            after. Of exported files channels are not known, and parameters and MACs only where the
            checkpoint that one was made from is here too.
        exp: names the data to evaluate on; None leaves out whatever needs them.
        settings: what to show.
        guests: of those files that are of other programs, what they hold.

    Raises:
        UserError: a file that cannot be read, classes that differ, data that are not there.
    """
    labels = settings.labels or short_names(paths)
    if len(labels) != len(paths):
        raise UserError(f"{len(labels)} labels for {len(paths)} checkpoints")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError(f"two models share a label: {', '.join(twice)}; `labels` names them")
    models = [
        _opened(path, label, settings, (guests or {}).get(path))
        for path, label in zip(paths, labels, strict=True)
    ]
    exps = [] if exp is None else _followers(exp, models)
    if exps:  # what is said of a model, its MACs too, is said at the size that it is evaluated at
        models = [
            replace(model, spec=replace(model.spec, input_size=own.test_size))
            for model, own in zip(models, exps, strict=True)
        ]
    if len(sizes := {model.spec.input_size for model in models}) > 1:
        given = ",".join(map(str, max(sizes)))
        logger.warning(
            f"the models have input sizes of their own, {_sizes(models)}, and each is measured at "
            f"its own: test_size {given} has all at one"
        )
    if size := settings.measured_size:
        others = [model.label for model in models if model.spec.input_size != size]
        if others:
            logger.warning(
                f"latencies are of {size[0]}×{size[1]}, which is not the size of "
                f"{', '.join(others)}: measure at that"
            )
    if exp is not None:
        device = resolve_device(settings.device)
        models = [_evaluated(*pair, device) for pair in zip(exps, models, strict=True)]
    first, last = models[0], models[-1] if len(models) > 1 else None
    sure = certainty_of(
        first.evaluator, [model.detections for model in models], [model.ap for model in models]
    )
    ends = _with_layers(first, models)
    return Report(
        title=settings.title or f"{_subject(exp, first)}: model report",
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        models=_rows(models, settings.measured, sure),
        measured_on=settings.measured_on,
        data=_data(first),
        dataset=str(exp.data_dir or "") if exp is not None else "",
        input_size=_sizes(models),
        certainty=sure.text,
        change_interval=sure.change,
        asked=(*settings.asked, *(_pruning_facts(*ends) if ends else ())),
        classes=_classes(first, last),
        curves=_curves(first, last),
        layers=_layer_bars(*ends) if ends else (),
        scales=scale_histograms(_ends(models)),
        pairs=shown_pairs(
            first.evaluator.dataset,
            (first.label, first.detections),
            (last.label, last.detections),
            most=settings.images,
            score=settings.score,
        )
        if first.evaluator and last
        else (),
        score=settings.score,
        commands=settings.commands,
        versions=tuple(version_facts([(m.label, m.path, m.sha256) for m in models])),
    )


def _with_layers(first: _Model, models: Sequence[_Model]) -> tuple[_Model, _Model] | None:
    """The model before and the one after, for an exported file the checkpoint it was made from.

    None where they are not among the models.
    """
    before, after = (_checkpoint_of(model, models) for model in (first, models[-1]))
    return (before, after) if before is not None and after is not None else None


def _checkpoint_of(model: _Model, models: Sequence[_Model]) -> _Model | None:
    """The one among the models that has the layers of a model; None where there is none."""
    if not isinstance(model.network, ExportedModel):
        return None if model.layers is None else model
    sha256 = model.network.info.checkpoint_sha256
    found = (other for other in models if other.layers is not None and other.sha256 == sha256)
    return next(found, None)


def _subject(exp: Exp | None, first: _Model) -> str:
    """What a page is of: the recipe, unless the first model is of another program."""
    return first.label if exp is None or first.guest is not None else exp.exp_name


def _pruning_facts(before: _Model, after: _Model) -> list[Fact]:
    facts = pruning_facts(after.prunings[len(before.prunings) :])
    if before.loaded is None or after.loaded is None:
        return facts
    old, new = before.loaded.spec.act, after.loaded.spec.act
    return facts + ([Fact(name="activation", value=f"{old} → {new}")] if old != new else [])


def _layer_bars(before: _Model, after: _Model) -> tuple[LayerBar, ...]:
    old, new = before.layers, after.layers
    return () if old is None or new is None else layer_bars(old, new)


def _ends(models: Sequence[_Model]) -> dict[str, nn.Module]:
    """The first and the last model that has layers, by label; the same one only once."""
    kept = [(model.label, model.layers) for model in models]
    known = [(label, layers) for label, layers in kept if layers is not None]
    return dict((*known[:1], *known[-1:]))


def _opened(path: Path, label: str, settings: ReportSettings, guest: Guest | None) -> _Model:
    if guest is not None:
        return _Model(
            label=label,
            path=guest.path,
            sha256=guest.sha256 or file_digest(guest.path),
            network=guest.network(),
            spec=guest.spec,
            loaded=None,
            guest=guest,
        )
    digest = file_digest(path)
    if not is_exported(path):
        loaded = load_model(path)
        return _Model(
            label=label,
            path=path,
            sha256=digest,
            network=loaded.model,
            spec=loaded.spec,
            loaded=loaded,
        )
    network = open_exported(path, precision=settings.openvino_precision, device=settings.device)
    info = network.info
    spec = ModelSpec(
        architecture=info.architecture,
        num_classes=info.num_classes,
        class_names=info.class_names,
        input_size=info.input_size,
    )
    return _Model(label=label, path=path, sha256=digest, network=network, spec=spec, loaded=None)


def _followers(exp: Exp, models: Sequence[_Model]) -> list[Exp]:
    """An Exp for each model, with its size and classes; these must be the same ones for all."""
    exps = [
        follow_checkpoint(exp, model.spec, model.path, pruned=model.is_pruned) for model in models
    ]
    for follower, model in zip(exps, models, strict=True):
        if follower.class_names != exps[0].class_names:
            raise UserError(
                f"a report puts models of the same classes side by side: {models[0].path} has "
                f"{', '.join(exps[0].class_names)}, {model.path} {', '.join(follower.class_names)}"
            )
    return exps


def _evaluated(exp: Exp, model: _Model, device: torch.device) -> _Model:
    evaluator = exp.get_evaluator(batch_size=_BATCH_SIZE)
    if isinstance(model.network, ExportedModel) and (
        loss := model.network.nms_loss(exp.test_conf, exp.nmsthre)
    ):
        logger.warning(loss)
    inference = infer(evaluator, model.network, device)
    return replace(
        model,
        evaluator=evaluator,
        result=evaluator.score(inference),
        detections=inference.detections,
    )


def _sizes(models: Sequence[_Model]) -> str:
    """Height and width of the input, each once."""
    return ", ".join(dict.fromkeys("×".join(map(str, model.spec.input_size)) for model in models))


def _rows(
    models: Sequence[_Model], measured: Sequence[ModelRow], sure: Certainty
) -> tuple[ModelRow, ...]:
    latencies = {row.label: row.latencies for row in measured}
    roles = dict.fromkeys((model.label for model in models), "")
    roles[models[-1].label] = "after"
    roles[models[0].label] = "before"
    rows = []
    for number, model in enumerate(models):
        checkpoint = _checkpoint_of(model, models)
        network = None if checkpoint is None else checkpoint.layers
        image = torch.zeros(1, 3, *model.spec.input_size)
        idle = training_bytes(model.loaded, model.path) if model.loaded else 0
        rows.append(
            ModelRow(
                label=model.label,
                role=roles[model.label],
                params=None if network is None else count_params(network),
                macs=None if network is None else count_macs(network, image)[""],
                file_bytes=file_bytes(model.path) - idle,
                training_bytes=idle,
                ap50_95=model.ap,
                ap50=_figure(model.result.ap50) if model.result else None,
                ap_interval=sure.intervals[number],
                training=training_facts(model.loaded) if model.loaded else "",
                latencies=latencies.get(model.label, ()),
            )
        )
    return (*rows, *(row for row in measured if row.label not in roles))


def _figure(value: float) -> float | None:
    return None if np.isnan(value) else value


def _data(model: _Model) -> str:
    """What AP was measured on."""
    if model.evaluator is None:
        return ""
    samples = model.evaluator.dataset.samples
    objects = sum(int((~np.asarray(sample.difficult, bool)).sum()) for sample in samples)
    return (
        f"AP on {len(samples):,} images with {objects:,} objects, "
        f"by {_RULES[model.evaluator.headline]}."
    )


def _classes(first: _Model, last: _Model | None) -> tuple[ClassRow, ...]:
    if first.result is None:
        return ()
    after = last.result.per_class if last and last.result else None
    return tuple(
        ClassRow(
            name=row.name,
            objects=row.objects,
            before=row.ap50_95,
            after=after[c].ap50_95 if after else None,
        )
        for c, row in enumerate(first.result.per_class)
    )


def _curves(first: _Model, last: _Model | None) -> tuple[Curve, ...]:
    """The mean and each class that has objects."""
    if first.evaluator is None:
        return ()
    names = first.evaluator.dataset.class_names
    both: list[Curves] = []
    for model in (first, last):
        if model is not None:
            samples = first.evaluator.dataset.samples
            both += precision_recall_curves(samples, model.detections, len(names), (0.5,))
    present = np.flatnonzero(both[0].objects).tolist()
    if not present:
        return ()

    def curve(name: str, classes: list[int]) -> Curve:
        lines = [tuple(c.precision_at_recall[classes].mean(axis=0).tolist()) for c in both]
        objects = int(both[0].objects[classes].sum())
        after = lines[1] if last else ()
        return Curve(name=name, objects=objects, before=lines[0], after=after)

    mean = [curve(f"mean of {len(present)} classes", present)] if len(present) > 1 else []
    return (*mean, *(curve(names[c], [c]) for c in present))
