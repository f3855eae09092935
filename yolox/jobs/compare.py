"""Checkpoints side by side: params, MACs, file size, measured latency, AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from loguru import logger
from rich.table import Table
from torch import nn

from yolox.bench.guest import Guest
from yolox.evaluators import Difference, EvalResult
from yolox.exp import Exp
from yolox.exp.follow import follow_checkpoint
from yolox.jobs.paired import find, paired_differences
from yolox.models import ModelSpec, load_model
from yolox.pruning import ModelFigures, comparison_table, measure_latency
from yolox.utils.choices import COMPARED_RUNS
from yolox.utils.device import device_name, resolve_device
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import short_names
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.printable import threads_of

_NO_GUESTS: Mapping[Path, Guest] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models beside each other, the first of them the reference.

    Attributes:
        rows: the figures of each.
        differences: AP50-95 of each after the first minus the first one's, where it was asked for.
        conditions: what all were measured at, in words.
    """

    rows: tuple[ModelFigures, ...]
    differences: tuple[Difference, ...]
    conditions: str

    def table(self) -> Table:
        """The figures, for a terminal or a notebook."""
        return comparison_table(self.rows, self.conditions)

    def lines(self) -> list[str]:
        """A sentence a difference."""
        first, *others = (row.label for row in self.rows)
        return [
            f"{label} against {first}: AP50-95 {difference.text()}"
            for label, difference in zip(others, self.differences, strict=False)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Model:
    """A model to compare.

    Attributes:
        path: of the checkpoint.
        layers: the model, counted and timed.
        network: the same as it is evaluated.
        spec, pruned: of the checkpoint.
    """

    path: Path
    layers: nn.Module
    network: nn.Module
    spec: ModelSpec
    pruned: bool


def compare(
    checkpoints: Sequence[str | Path],
    exp: Exp | None = None,
    *,
    labels: Sequence[str] | None = None,
    runs: int = COMPARED_RUNS,
    paired: int | None = None,
    device: str | torch.device = "auto",
    guests: Mapping[Path, Guest] = _NO_GUESTS,
) -> Comparison:
    """Measure checkpoints beside each other.

    Args:
        checkpoints: files, or published names such as ``yolox_s``; the first is the reference.
        exp: names the data that AP is measured on; without it there is none.
        labels: a name for each; by default what differs in their paths.
        runs: number of timed forward passes of each, in turns.
        paired: how often the evaluation images are drawn anew, the same for all models, to tell
            which differences in AP from the first are real; None leaves that out.
        device: where they run, see `yolox.utils.device.resolve_device`.
        guests: what is known of those checkpoints that are of another program.

    Returns:
        Sizes and times; AP in [0, 1]. All are measured at the ``test_size`` that was given for the
        Exp, otherwise at the size of the first model.

    Raises:
        UserError: a file that cannot be compared, labels or draws that do not fit, or see
            `yolox.jobs.paired.paired_differences`.
    """
    names = list(labels or short_names([Path(path) for path in checkpoints]))
    if len(names) != len(checkpoints):
        raise UserError(f"{len(names)} labels for {len(checkpoints)} checkpoints")
    if paired and len(checkpoints) < 2:
        raise UserError("`paired` compares with the first checkpoint: give two or more")
    if paired and exp is None:
        raise UserError("`paired` is about AP: give an Exp that names the data")
    place = resolve_device(device)
    models = [_opened(path, guests.get(Path(path))) for path in checkpoints]
    given = exp is not None and "test_size" in exp.given
    size = exp.test_size if exp is not None and given else models[0].spec.input_size
    image = 255 * torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = []
    if exp is not None:
        for model in models:
            own = follow_checkpoint(exp, model.spec, model.path, pruned=model.pruned)
            own.put(test_size=size)
            found.append(find(model.network, model.path, own, place))
        _tell_other_sizes(names, models, size)
    times = measure_latency([model.layers for model in models], image, place, runs=runs)
    results: list[EvalResult | None] = [one.result for one in found]
    rows = [
        ModelFigures(
            label=label,
            params=count_params(model.layers),
            macs=count_macs(model.layers, image)[""],
            file_bytes=model.path.stat().st_size,
            latency_ms=time,
            ap50_95=result.ap50_95 if result else None,
            ap50=result.ap50 if result else None,
        )
        for label, model, time, result in zip(
            names, models, times, results or [None] * len(models), strict=True
        )
    ]
    where = threads_of(torch.get_num_threads()) if place.type == "cpu" else device_name(place)
    return Comparison(
        rows=tuple(rows),
        differences=tuple(paired_differences(found, paired)) if paired else (),
        conditions=f"{size[0]}×{size[1]} input, batch 1, float32, {where}, PyTorch",
    )


def _tell_other_sizes(
    labels: Sequence[str], models: Sequence[_Model], size: tuple[int, int]
) -> None:
    """Warn of models that are evaluated at another size than theirs."""
    others = [
        f"{label} ({model.spec.input_size[0]}×{model.spec.input_size[1]})"
        for label, model in zip(labels, models, strict=True)
        if model.spec.input_size != size
    ]
    if others:
        logger.warning(
            f"AP is at {size[0]}×{size[1]} for all, which is not the size of {', '.join(others)}: "
            "test_size sets another one"
        )


def _opened(path: str | Path, guest: Guest | None) -> _Model:
    if guest is None:
        file = resolve_weights(path)
        loaded = load_model(file)
        return _Model(
            path=file,
            layers=loaded.model,
            network=loaded.model,
            spec=loaded.spec,
            pruned=loaded.is_pruned,
        )
    layers = guest.module()
    if layers is None:
        raise UserError(f"{path} is an exported file: expected a checkpoint")
    return _Model(
        path=Path(path), layers=layers, network=guest.network(), spec=guest.spec,
        pruned=guest.pruned,
    )  # fmt: skip
