"""Put checkpoints side by side: params, MACs, file size, measured latency, AP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from loguru import logger
from torch import nn

from yolox.bench.guest import Guest
from yolox.exp import Exp
from yolox.exp.follow import follow_checkpoint
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.paired import Found, find, paired_differences
from yolox.models import ModelSpec, load_model
from yolox.pruning import ModelFigures, comparison_table, measure_latency
from yolox.tools import cli
from yolox.tools.flags.compare import make_parser
from yolox.tools.guests import read_guests
from yolox.tools.words import called
from yolox.utils.device import CPU, device_name, resolve_device
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import short_names
from yolox.utils.model_utils import count_macs, count_params


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
    models: Sequence[_Model],
    labels: Sequence[str],
    exp: Exp | None,
    size: tuple[int, int],
    *,
    runs: int = 30,
    paired: int | None = None,
    device: torch.device = CPU,
) -> tuple[list[ModelFigures], list[str]]:
    """The figures of each model, and what their differences are worth.

    Args:
        models: for the same input size.
        labels: one a model.
        exp: names the data that AP is measured on; None leaves it out.
        size: (height, width) of the images, pixels.
        runs: timed forward passes a model.
        paired: how often the images are drawn anew for the differences from the first model; None
            leaves them out.
        device: where they run.

    Raises:
        UserError: see `yolox.jobs.paired.paired_differences`.
    """
    image = 255 * torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = [] if exp is None else [_found(model, exp, device) for model in models]
    differences = paired_differences(found, paired) if paired else []
    lines = [
        f"{label} against {labels[0]}: AP50-95 {difference.text()}"
        for label, difference in zip(labels[1:], differences, strict=False)
    ]
    times = measure_latency([model.layers for model in models], image, device, runs=runs)
    rows = []
    for number, (label, model, time) in enumerate(zip(labels, models, times, strict=True)):
        result = found[number].result if found else None
        rows.append(
            ModelFigures(
                label=label,
                params=count_params(model.layers),
                macs=count_macs(model.layers, image)[""],
                file_bytes=model.path.stat().st_size,
                latency_ms=time,
                ap50_95=result.ap50_95 if result else None,
                ap50=result.ap50 if result else None,
            )
        )
    return rows, lines


def _found(model: _Model, exp: Exp, device: torch.device) -> Found:
    """What a model finds, at its own size unless the Exp was given another."""
    followed = follow_checkpoint(exp, model.spec, model.path, pruned=model.pruned)
    return find(model.network, model.path, followed, device)


def _opened(path: Path, guest: Guest | None) -> _Model:
    if guest is None:
        loaded = load_model(path)
        return _Model(
            path=path,
            layers=loaded.model,
            network=loaded.model,
            spec=loaded.spec,
            pruned=loaded.is_pruned,
        )
    layers = guest.module()
    if layers is None:
        raise UserError(f"{path} is an exported file: {called('bench')} compares those")
    return _Model(
        path=path, layers=layers, network=guest.network(), spec=guest.spec, pruned=guest.pruned
    )


def _size(first: _Model, exp: Exp | None) -> tuple[int, int]:
    """Height and width that all is measured at: as given, or those of the first."""
    given = exp is not None and "test_size" in exp.given
    return exp.test_size if exp is not None and given else first.spec.input_size


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    args = make_parser().parse_args(argv)
    guests = read_guests(args.ckpt)
    labels = args.labels or short_names(args.ckpt)
    if len(labels) != len(args.ckpt):
        raise UserError(f"{len(labels)} labels for {len(args.ckpt)} checkpoints")
    if args.paired and len(args.ckpt) < 2:
        raise UserError("`paired` compares with the first checkpoint: give two or more")
    if args.paired and args.no_eval:
        raise UserError("`paired` is about AP: leave out `no_eval`")
    if args.no_eval:
        cli.refuse_fields(args, "without AP nothing is read of the Exp")
    exp = None if args.no_eval else cli.load_exp(args)
    if exp is not None:
        tell_idle(exp, idle_without_training(exp))
    device = resolve_device(args.device)
    models = [
        _opened(path if path in guests else resolve_weights(path), guests.get(path))
        for path in args.ckpt
    ]
    size = _size(models[0], exp)
    with cli.telling_whose_data(args, exp):
        rows, lines = compare(
            models, labels, exp, size, runs=args.runs, paired=args.paired, device=device
        )
    place = f"{torch.get_num_threads()} threads" if device.type == "cpu" else device_name(device)
    title = f"{size[0]}×{size[1]} input, batch 1, float32, {place}, PyTorch"
    cli.console().print(comparison_table(rows, title))
    for line in lines:
        logger.info(line)
    if lines:
        logger.info(
            f"in brackets: 95 % of {args.paired} draws of the evaluation images, the same for both "
            "models (paired bootstrap); another training run is another matter"
        )


if __name__ == "__main__":
    cli.entry(main, make_parser)
