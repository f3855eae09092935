"""How much each layer costs when it alone is pruned, and the ratios that follow from it."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from numpy.typing import NDArray
from torch import nn

from yolox.evaluators import Evaluator
from yolox.exp import Exp
from yolox.exp.follow import follow_checkpoint, with_names
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.prune import Calibration, calibrate, probe, total_loss
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
from yolox.tools import cli
from yolox.tools.flags.parts import DEFAULT_EXP
from yolox.tools.flags.sensitivity import AP_TOLERANCE, LOSS_TOLERANCE, TITLES, make_parser
from yolox.utils.checkpoint import file_digest
from yolox.utils.device import default_device
from yolox.utils.download import resolve_weights
from yolox.utils.files import write_text
from yolox.utils.locks import claimed
from yolox.utils.progress import track

EVAL_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Study:
    """A loaded model with what it is scored on and measured by.

    Attributes:
        model: in evaluation mode, not to be touched.
        groups, chosen: all of the model's, and those to prune.
        config: criterion and seed of the scores.
        metric: one of `TITLES`.
        calibration: training images; empty where neither criterion nor metric needs them.
        evaluator: for AP, else None.
    """

    model: nn.Module
    groups: Sequence[Group]
    chosen: Sequence[Group]
    config: PruneConfig
    metric: str
    calibration: Calibration
    evaluator: Evaluator | None

    def measure(self, model: nn.Module) -> float:
        """AP50-95, or the mean training loss on the calibration images; may move the model."""
        device = default_device()
        if self.evaluator is not None:
            fast = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return float(self.evaluator.run(fast, device=device).ap50_95)
        model.to(device)
        with torch.no_grad():  # not `Calibration.mean_loss`, which shows a bar of its own
            losses = [float(total_loss(model, batch)) for batch in self.calibration.batches]
        return sum(losses) / len(losses)

    def points(self, todo: Sequence[tuple[Group, float]]) -> Iterator[SensitivityPoint]:
        """Score all chosen layers once, then measure."""
        found = self.calibration.scorer(self.config)(self.model, self.chosen)
        scores = {group.name: score for group, score in zip(self.chosen, found, strict=True)}
        return measure_sensitivity(self.model, self.groups, todo, scores, self.measure)


def settings(study: Study, exp: Exp, images: int) -> dict[str, Any]:
    """What decides the values beside the checkpoint: measurements with others do not compare."""
    decisive: dict[str, Any] = {
        "metric": study.metric,
        "importance": study.config.importance,
        "seed": study.config.seed,
        "test_size": exp.test_size,
    }
    if study.calibration:
        targets = [labels.numpy() for _, labels in study.calibration.batches]
        decisive |= {"images": images, "training_data": _digest(len(targets), targets)}
    if study.evaluator is not None:
        samples = study.evaluator.dataset.samples
        arrays = (array for s in samples for array in (s.boxes, s.classes, s.difficult))
        decisive |= {
            "test_conf": exp.test_conf,
            "nmsthre": exp.nmsthre,
            "evaluation_data": _digest(len(samples), arrays),
        }
    return decisive


def _digest(images: int, arrays: Iterable[NDArray[Any]]) -> str:
    """Annotations in a few words: a folder may move, and a list of images may grow."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}".encode() + array.tobytes())
    return f"{images} images {digest.hexdigest()[:12]}"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, measure what is not known yet, print, write."""
    args = _parse(argv)
    exp = cli.load_exp(args)
    source = resolve_weights(args.ckpt or exp.output_folder() / "best_ckpt.pth")
    folder = args.output or exp.output_folder() / "sensitivity"
    loaded = load_model(source)
    tell_idle(exp, idle_without_training(exp, evaluates=args.metric == "ap"))
    exp = follow_checkpoint(exp, loaded.spec, source, pruned=loaded.is_pruned)
    study = _prepare(args, exp, with_names(loaded, exp), source)
    header = {"checkpoint": file_digest(source), **settings(study, exp, args.images)}
    with claimed(folder, PruningError):
        _study(args, study, header, folder, source)


def _study(
    args: argparse.Namespace, study: Study, header: Mapping[str, Any], folder: Path, source: Path
) -> None:
    log = SensitivityLog(folder / "sensitivity.jsonl", header)
    base = _base(study, log)
    tolerance = _tolerance(args, base)  # before hours of measuring: it may be refused
    _measure(study, args.ratios, log)

    modules = [name for name, _ in study.model.named_modules()]
    position = {group.name: modules.index(group.producers[0].name) for group in study.groups}
    if odd := [point.layer for point in log.points if point.layer not in position]:
        raise PruningError(
            f"{log.path} names {odd[0]}, no layer that can be pruned here: delete that file"
        )
    result = SensitivityResult(
        points=tuple(sorted(log.points, key=lambda p: (position[p.layer], p.ratio))),
        base=base,
        metric=TITLES[args.metric],
        higher_is_better=args.metric == "ap",
    )
    if output := _write(study, result, tolerance, folder):
        logger.info(_next_command(args, source, output))


def _prepare(args: argparse.Namespace, exp: Exp, loaded: LoadedModel, source: Path) -> Study:
    config = PruneConfig(
        mode="layer" if args.layers else "global",
        layers=tuple(args.layers),
        importance=args.importance,
        # One layer at a time, by the ratio itself, and as the cut leaves it.
        round_to=1,
        reconstruct=0,
        seed=exp.seed or 0,
    )
    groups = trace_groups(loaded.model, probe())
    chosen = select_groups(groups, config)
    calibration = Calibration()
    if args.metric == "loss" or CRITERIA[config.importance].needs_data:
        exp, _, calibration = calibrate(exp, loaded, source, config, args.images)
    return Study(
        model=loaded.model.eval(),
        groups=groups,
        chosen=chosen,
        config=config,
        metric=args.metric,
        calibration=calibration,
        evaluator=exp.get_evaluator(EVAL_BATCH) if args.metric == "ap" else None,
    )


def _base(study: Study, log: SensitivityLog) -> float:
    """The whole model's value, from the log where it is known."""
    if log.base is None:
        value = study.measure(copy.deepcopy(study.model))
        if not math.isfinite(value):
            raise PruningError(
                f"{TITLES[study.metric]} of the whole model is {value}: no cost can be told"
            )
        log.set_base(value)
    assert log.base is not None
    logger.info(f"{TITLES[study.metric]} of the whole model: {log.base:.4f}")
    return log.base


def _tolerance(args: argparse.Namespace, base: float) -> float:
    """The cost that a layer may have, in the metric's unit.

    Raises:
        PruningError: there is no more AP than that to lose.
    """
    if args.metric == "loss":
        return base * float(LOSS_TOLERANCE if args.tolerance is None else args.tolerance)
    tolerance = float(AP_TOLERANCE if args.tolerance is None else args.tolerance)
    if base <= tolerance:
        raise PruningError(
            f"AP50-95 of the whole model is {base:.4f}, and a tolerance of {tolerance:g} would "
            "let every layer go: train it first, or measure --metric loss"
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
        for point in _with_news(shown, len(todo), TITLES[study.metric]):
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


def _write(study: Study, result: SensitivityResult, tolerance: float, folder: Path) -> Path | None:
    """Print the table, draw the picture, write the ratios; returns their file where there are."""
    suggested = suggest_ratios(result.points, result.base, tolerance, result.higher_is_better)
    console = cli.console()
    console.print(result.table(suggested))
    picture, output = folder / "sensitivity.png", folder / "ratios.json"
    result.save_picture(picture)
    logger.info(f"picture in {picture}")
    ratios = prune_ratios(study.groups, suggested)
    if not ratios:
        output.unlink(missing_ok=True)  # an earlier run's, with another tolerance
        logger.warning(
            f"every layer costs more than {tolerance:.4f} at its smallest ratio: no {output}; "
            "measure smaller --ratios, or allow a larger --tolerance"
        )
        return None
    write_text(output, json.dumps(ratios, indent=1) + "\n", PruningError)
    logger.info(
        f"{len(ratios)} layers cost at most {tolerance:.4f} of {result.metric}, each alone; all "
        "together cost more than each does, so measure what comes out:"
    )
    return output


def _next_command(args: argparse.Namespace, source: Path, ratios: Path) -> str:
    recipe: list[object] = ["-n", args.name] if args.name and not args.exp_file else []
    recipe = recipe or ["-f", args.exp_file or DEFAULT_EXP]
    words = ["-c", source, "--layer-sparsity", ratios, "--importance", args.importance, "--eval"]
    return f"python tools/prunmodel.py {shlex.join(map(str, [*words, *recipe, *args.opts]))}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    return make_parser().parse_args(argv)


if __name__ == "__main__":
    cli.entry(main)
