"""Whether the fine-tuned model is what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from loguru import logger

from yolox.models import load_model
from yolox.pruning import PruneConfig
from yolox.pruning.latency.plan import LATENCY_TOLERANCE
from yolox.pruning.report import BUDGET_TOLERANCE
from yolox.report import Report, below_the_cut, judge
from yolox.utils.documents import read_json
from yolox.utils.errors import UserError
from yolox.utils.model_utils import count_macs, count_params


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was asked for, and what came out.

    Attributes:
        target: as it was given.
        before, after: MACs of an image, parameters, or milliseconds of the two models.
        met: whether the target was, within a hundredth of the whole; a latency within a twentieth
            of itself.
        text: the same in a sentence; empty where the pruning said so already.
    """

    target: str
    before: float
    after: float
    met: bool
    text: str = ""


def tell_verdicts(verdict: Verdict, report: Report | None) -> None:
    """Say what came out: of the target, and where there is a report, of the accuracy."""
    if verdict.text:
        logger.log("INFO" if verdict.met else "WARNING", verdict.text)
    judgement = judge(report) if report else None
    if report is None or judgement is None:
        return
    failed = judgement.kind == "failed"
    line = f"{judgement.label.lower()}: {judgement.sentence}"
    if failed:
        line += f". {judgement.remarks[0]}"
    logger.log("WARNING" if failed else "INFO", line)
    if warning := below_the_cut(report):
        logger.warning(warning)


def latency_verdict(target: str, runtime: str, measured: Path) -> Verdict:
    """Whether the model as it is after fine-tuning takes what was asked for.

    Args:
        target: of kind ``latency``.
        runtime: that it is to be met in.
        measured: file of latencies, of models called ``before`` and ``after``.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        medians = {
            entry["label"]: float(entry["forward"]["median"])
            for entry in read_json(measured)["measurements"]
            if entry["runtime"] == runtime
        }
        before, after = medians["before"], medians["after"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read latencies in {measured} ({error!r}): delete it, and the same line "
            "measures again"
        ) from error
    asked = PruneConfig(target=target).latency_target()
    miss = after / asked.milliseconds(before) - 1
    return Verdict(
        target=target,
        before=before,
        after=after,
        met=miss <= LATENCY_TOLERANCE,
        text=f"asked for {asked.text}: the fine-tuned model takes {after:.2f} of {before:.2f} ms "
        f"({after / before:.3f}, {miss:+.1%} of what was asked) in {runtime}",
    )


def size_verdict(target: str, source: Path, final: Path) -> Verdict:
    """Whether a model is as small as was asked for, against the one it was pruned from.

    Args:
        target: of kind ``macs`` or ``params``.
        source: checkpoint before the pruning.
        final: checkpoint after it.
    """
    config = PruneConfig(target=target)
    first, last = load_model(source), load_model(final)
    if config.target_kind() == "params":
        before, after = (float(count_params(loaded.model)) for loaded in (first, last))
    else:
        image = torch.zeros(1, 3, *first.spec.input_size)
        before, after = (float(count_macs(loaded.model, image)[""]) for loaded in (first, last))
    met = after / before <= config.target_fraction() + BUDGET_TOLERANCE
    return Verdict(target=target, before=before, after=after, met=met)
