"""Which refitted layers stay: those without which the loss on other images would be higher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from yolox.pruning.compensate import following_norms
from yolox.pruning.importance import Loss
from yolox.pruning.replay import Replay
from yolox.utils.model_utils import copy_model
from yolox.utils.progress import track

ERRORS = 2  # standard errors that a refit has to hurt by before it is taken back


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Calibration images with their labels, as batches of what the loss takes.

    Attributes:
        loss: a scalar of the model and a batch, where the model is.
        fitted: those that layers are refitted on, in the order of the images given with them.
        held: others, which judge the refit; without any it is taken as it is.
    """

    loss: Loss
    fitted: Sequence[Any]
    held: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of a refit on images that it did not see.

    Attributes:
        bare, fitted, kept: mean loss without the refit, with all of it, and with what stays.
        stays: layers that keep their refit.
        dropped: layers that keep their old weights.
    """

    bare: float
    fitted: float
    kept: float
    stays: tuple[str, ...]
    dropped: tuple[str, ...]

    def sentence(self) -> str:
        """What stays, and what it is worth."""
        count = len(self.stays) + len(self.dropped)
        losses = f"{self.bare:.3f} without a refit, {self.fitted:.3f} with all of it"
        if not self.stays:
            return f"no layer keeps its refit: loss on held-back images {losses}"
        return (
            f"{len(self.stays)} of {count} layers keep their refit: loss on held-back images "
            f"{losses}, {self.kept:.3f} with what stays"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in vars(self).items()}


@torch.no_grad()
def keep_what_helps(
    bare: nn.Module,
    fitted: nn.Module,
    labelled: LabelledImages,
    example_input: Tensor,
    device: torch.device,
) -> tuple[nn.Module, Judgement]:
    """Take back each layer's refit, last layer first, where the loss is clearly lower without it.

    Last first, since a layer was fitted to what those before it send out, refitted as they are.
    Then those that were taken back get a second try.

    Args:
        bare: the masked model before it was refitted.
        fitted: the same one after that.
        labelled: images that the fit did not see, and the loss.
        example_input: float (1, 3, H, W), to find the batch norm behind each layer with.
        device: to compute on.

    Returns:
        A copy of `fitted` with what stays of it: nothing, where `bare` has the lowest loss of all.
    """
    batches, loss = labelled.held, labelled.loss
    parts = _parts(bare, fitted, example_input)
    replay = Replay(fitted, batches, loss, parts, device)
    now, old, new = (model.state_dict() for model in (replay.model, bare, fitted))
    without = Replay(bare, batches, loss, (), device).losses
    best, dropped = replay.losses, list[str]()
    order = replay.order(parts)
    for layer in track(order[::-1], "Judging refits"):
        _copy(old, now, parts[layer])
        after = replay.after([layer, *dropped])
        if is_lower(after, best):
            best = after
            dropped.append(layer)
        else:
            _copy(new, now, parts[layer])
    # What looked wrong behind a wrong layer may be right now that this one is taken back.
    again = [name for name in order if name in dropped]
    for layer in track(again, "Judging once more"):
        _copy(new, now, parts[layer])
        after = replay.after(dropped)
        if is_lower(best, after):
            _copy(old, now, parts[layer])
        else:
            best = after
            dropped.remove(layer)
    stays = [layer for layer in parts if layer not in dropped]
    if not fmean(best) < fmean(without):
        best, stays, dropped = without, [], list(parts)
    kept = copy_model(fitted)
    for layer in dropped:
        _copy(old, kept.state_dict(), parts[layer])
    judgement = Judgement(
        bare=fmean(without),
        fitted=fmean(replay.losses),
        kept=fmean(best),
        stays=tuple(stays),
        dropped=tuple(dropped),
    )
    return kept, judgement


def is_lower(losses: Sequence[float], than: Sequence[float]) -> bool:
    """Whether losses are lower than others on the same batches, by more than chance would have it.

    That is by more than `ERRORS` standard errors of the mean difference; of one batch, at all.
    """
    if not all(map(math.isfinite, [*losses, *than])):
        return fmean(losses) < fmean(than)
    differences = [b - a for a, b in zip(losses, than, strict=True)]
    chance = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return fmean(differences) > ERRORS * chance


def _parts(bare: nn.Module, fitted: nn.Module, example_input: Tensor) -> dict[str, list[str]]:
    """Tensors that the refit changed, by the layer, a batch norm counted to what it follows."""
    owners = {norm: layer for layer, norm in following_norms(bare, example_input).items()}
    old = bare.state_dict()
    parts: dict[str, list[str]] = {}
    for key, value in fitted.state_dict().items():
        if not torch.equal(value, old[key]):
            module = key.rpartition(".")[0]
            parts.setdefault(owners.get(module, module), []).append(key)
    return parts


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor], keys: Sequence[str]) -> None:
    for key in keys:
        target[key].copy_(source[key])
