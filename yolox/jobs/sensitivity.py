"""How much each layer costs when it alone is pruned, and the ratios that follow from it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from numpy.typing import NDArray
from torch import nn

from yolox.evaluators import Evaluator
from yolox.exp import Exp
from yolox.exp.follow import follow_checkpoint, with_names
from yolox.jobs.calibration import Calibration, calibrate, probe, total_loss
from yolox.models import LoadedModel, load_model
from yolox.pruning import CRITERIA, PruneConfig, PruningError, trace_groups
from yolox.pruning.groups import Group
from yolox.pruning.select import select_groups
from yolox.pruning.sensitivity import (
    SensitivityLog,
    SensitivityPoint,
    SensitivityResult,
    measure_sensitivity,
    pending,
    prune_ratios,
    suggest_ratios,
)
from yolox.utils.checkpoint import file_digest
from yolox.utils.choices import AP_TOLERANCE, LAYER_RATIOS, LOSS_TOLERANCE, METRICS
from yolox.utils.device import resolve_device
from yolox.utils.documents import json_text
from yolox.utils.files import write_text
from yolox.utils.locks import claimed
from yolox.utils.model_utils import copy_model
from yolox.utils.progress import track

EVAL_BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class SensitivitySettings:
    """What is measured, of which layers, and what a layer may cost.

    Attributes:
        ratios: fractions of a layer's channels to remove, each in (0, 1).
        layers: names or patterns of layers; empty for all.
        metric: one of `METRICS`: AP on the evaluation images, or loss on training images.
        importance: criterion by which channels go.
        images: training images for scores and loss.
        tolerance: what a layer may cost: a fall of AP, or a rise of the loss as a fraction of it;
            by default `AP_TOLERANCE` or `LOSS_TOLERANCE`.
        device: see `yolox.utils.device.resolve_device`.
    """

    ratios: tuple[float, ...] = LAYER_RATIOS
    layers: tuple[str, ...] = ()
    metric: str = "ap"
    importance: str = "taylor"
    images: int = 64
    tolerance: float | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class SensitivityOutcome:
    """What an analysis found and wrote.

    Attributes:
        source: the checkpoint.
        importance: criterion by which channels went.
        result: every measurement.
        suggested: a ratio for each layer that may lose some; by the layer's name.
        tolerance: the cost that a layer may have, in the metric's unit.
        ratios: by pattern, as pruning takes them.
        picture, output: files written; `output` is there where `ratios` has any.
    """

    source: Path
    importance: str
    result: SensitivityResult
    suggested: Mapping[str, float]
    tolerance: float
    ratios: Mapping[str, float]
    picture: Path
    output: Path


def analyse(
    source: Path, exp: Exp, folder: Path, settings: SensitivitySettings
) -> SensitivityOutcome:
    """Measure what each layer costs; a run that was stopped goes on.

    Writes ``sensitivity.jsonl`` as it goes, ``sensitivity.png``, and ``ratios.json`` with the
    largest ratio of each layer that costs no more than the tolerance.

    Args:
        source: a checkpoint.
        exp: whose images it is measured on; not changed.
        folder: to write into.
        settings: what to measure, and at which ratios.

    Raises:
        PruningError: nothing to measure or to tell apart, or the folder holds another analysis.
    """
    loaded = load_model(source)
    exp = follow_checkpoint(exp, loaded.spec, source, pruned=loaded.is_pruned)
    study = _prepare(settings, exp, with_names(loaded, exp), source)
    header = {"checkpoint": file_digest(source), **comparable_settings(study, exp, settings.images)}
    with claimed(folder, PruningError):
        log = SensitivityLog(folder / "sensitivity.jsonl", header)
        base = _base(study, log)
        tolerance = _tolerance(settings, base)  # before hours of measuring: it may be refused
        _measure(study, settings.ratios, log)
        result = _result(study, log, base)
        suggested = suggest_ratios(result.points, base, tolerance, result.higher_is_better)
        outcome = SensitivityOutcome(
            source=source,
            importance=settings.importance,
            result=result,
            suggested=suggested,
            tolerance=tolerance,
            ratios=prune_ratios(study.groups, suggested),
            picture=folder / "sensitivity.png",
            output=folder / "ratios.json",
        )
        _write(outcome)
    return outcome


def _write(outcome: SensitivityOutcome) -> None:
    """Draw the picture, write the ratios."""
    outcome.result.save_picture(outcome.picture)
    if outcome.ratios:
        text = json_text(outcome.ratios, indent=1) + "\n"
        write_text(outcome.output, text, PruningError)
    else:
        outcome.output.unlink(missing_ok=True)  # an earlier run's, with another tolerance


@dataclass(frozen=True, kw_only=True)
class Study:
    """A loaded model with what it is scored on and measured by.

    Attributes:
        model: in evaluation mode, not to be touched.
        groups, chosen: all of the model's, and those to prune.
        config: criterion and seed of the scores.
        metric: one of `METRICS`.
        calibration: training images; empty where neither criterion nor metric needs them.
        evaluator: for AP, else None.
        device: where it is measured.
    """

    model: nn.Module
    groups: Sequence[Group]
    chosen: Sequence[Group]
    config: PruneConfig
    metric: str
    calibration: Calibration
    evaluator: Evaluator | None
    device: torch.device = field(default_factory=resolve_device)

    def measure(self, model: nn.Module) -> float:
        """AP50-95, or the mean training loss on the calibration images; may move the model."""
        if self.evaluator is not None:
            fast = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return float(self.evaluator.run(fast, device=self.device).ap50_95)
        model.to(self.device)
        with torch.no_grad():  # not `Calibration.mean_loss`, which shows a bar of its own
            losses = [float(total_loss(model, batch)) for batch in self.calibration.batches]
        return sum(losses) / len(losses)

    def points(self, todo: Sequence[tuple[Group, float]]) -> Iterator[SensitivityPoint]:
        """Score all chosen layers once, then measure."""
        found = self.calibration.scorer(self.config)(self.model, self.chosen)
        scores = {group.name: score for group, score in zip(self.chosen, found, strict=True)}
        return measure_sensitivity(self.model, self.groups, todo, scores, self.measure)


def comparable_settings(study: Study, exp: Exp, images: int) -> dict[str, Any]:
    """What decides the values beside the checkpoint: measurements with others do not compare."""
    values: dict[str, Any] = {
        "metric": study.metric,
        "importance": study.config.importance,
        "seed": study.config.seed,
        "test_size": exp.test_size,
    }
    if study.calibration:
        targets = [labels.numpy() for _, labels in study.calibration.batches]
        values |= {"images": images, "training_data": _digest(len(targets), targets)}
    if study.evaluator is not None:
        samples = study.evaluator.dataset.samples
        arrays = (array for s in samples for array in (s.boxes, s.classes, s.difficult))
        values |= {
            "test_conf": exp.test_conf,
            "nmsthre": exp.nmsthre,
            "evaluation_data": _digest(len(samples), arrays),
        }
    return values


def _digest(images: int, arrays: Iterable[NDArray[Any]]) -> str:
    """Annotations in a few words: a folder may move, and a list of images may grow."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode() + array.tobytes())
    return f"{images} images {digest.hexdigest()[:12]}"


def _prepare(settings: SensitivitySettings, exp: Exp, loaded: LoadedModel, source: Path) -> Study:
    device = resolve_device(settings.device)
    config = PruneConfig(
        mode="layer" if settings.layers else "global",
        layers=settings.layers,
        importance=settings.importance,
        # One layer at a time, by the ratio itself, and as the cut leaves it.
        round_to=1,
        reconstruct=0,
        seed=exp.seed or 0,
    )
    groups = trace_groups(loaded.model, probe())
    chosen = select_groups(groups, config)
    calibration = Calibration()
    if settings.metric == "loss" or CRITERIA[config.importance].needs_data:
        exp, _, calibration = calibrate(exp, loaded, source, config, settings.images)
    return Study(
        model=loaded.model.eval(),
        groups=groups,
        chosen=chosen,
        config=config,
        metric=settings.metric,
        calibration=dataclasses.replace(calibration, device=device),
        device=device,
        evaluator=exp.get_evaluator(EVAL_BATCH_SIZE) if settings.metric == "ap" else None,
    )


def _result(study: Study, log: SensitivityLog, base: float) -> SensitivityResult:
    """All measurements, layers in the model's order."""
    modules = [name for name, _ in study.model.named_modules()]
    position = {group.name: modules.index(group.producers[0].name) for group in study.groups}
    if odd := [point.layer for point in log.points if point.layer not in position]:
        raise PruningError(
            f"{log.path} names {odd[0]}, no layer that can be pruned here: delete that file"
        )
    return SensitivityResult(
        points=tuple(sorted(log.points, key=lambda p: (position[p.layer], p.ratio))),
        base=base,
        metric=METRICS[study.metric],
        higher_is_better=study.metric == "ap",
    )


def _base(study: Study, log: SensitivityLog) -> float:
    """The whole model's value, from the log where it is known."""
    if log.base is None:
        value = study.measure(copy_model(study.model))
        if not math.isfinite(value):
            raise PruningError(
                f"{METRICS[study.metric]} of the whole model is {value}: no cost can be measured"
            )
        log.set_base(value)
    assert log.base is not None
    logger.info(f"{METRICS[study.metric]} of the whole model: {log.base:.4f}")
    return log.base


def _tolerance(settings: SensitivitySettings, base: float) -> float:
    """The cost that a layer may have, in the metric's unit.

    Raises:
        PruningError: there is no more AP than that to lose.
    """
    if settings.metric == "loss":
        return base * (LOSS_TOLERANCE if settings.tolerance is None else settings.tolerance)
    tolerance = AP_TOLERANCE if settings.tolerance is None else settings.tolerance
    if base <= tolerance:
        raise PruningError(
            f"AP50-95 of the whole model is {base:.4f}, and a tolerance of {tolerance:g} would "
            "let every layer go: train it first, or measure `metric='loss'`"
        )
    return tolerance


def _measure(study: Study, ratios: Sequence[float], log: SensitivityLog) -> None:
    """Measure what the log does not hold yet."""
    total = len(pending(study.chosen, ratios))
    todo = pending(study.chosen, ratios, log.known())
    if not total:
        raise PruningError("nothing to measure: every chosen layer has a single channel")
    known = f", {total - len(todo)} of them known from {log.path}" if len(todo) < total else ""
    logger.info(f"{len(study.chosen)} layers, {total} measurements{known}")
    if todo:
        shown = track(study.points(todo), "Sensitivity", total=len(todo))
        for point in _with_news(shown, len(todo), METRICS[study.metric]):
            log.add(point)


def _with_news(
    points: Iterable[SensitivityPoint], total: int, title: str
) -> Iterator[SensitivityPoint]:
    """The points, with a line after the first and every tenth of the way where no bar is shown."""
    start = time.monotonic()
    for done, point in enumerate(points, 1):
        yield point
        if not sys.stderr.isatty() and (done == 1 or done * 10 // total > (done - 1) * 10 // total):
            minutes = (time.monotonic() - start) / done * (total - done) / 60
            logger.info(
                f"{done}/{total}: {point.layer} less {point.ratio:g} has {title} "
                f"{point.value:.4f}, about {minutes:.0f} min left"
            )
