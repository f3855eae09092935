"""Put checkpoints side by side: params, MACs, file size, measured latency, AP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from loguru import logger

from yolox.exp import Exp
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.jobs.paired import Found, find, paired_differences
from yolox.models import LoadedModel, load_model
from yolox.pruning import ModelFigures, comparison_table, measure_latency
from yolox.tools import cli
from yolox.tools.flags.compare import make_parser
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import short_names
from yolox.utils.model_utils import count_macs, count_params


def compare(
    paths: Sequence[Path],
    labels: Sequence[str],
    exp: Exp | None,
    *,
    runs: int = 30,
    paired: int | None = None,
) -> tuple[list[ModelFigures], list[str]]:
    """The figures of each checkpoint, on this machine's CPU, and what their differences are worth.

    Args:
        paths: checkpoints of models for the same input size.
        labels: one a checkpoint.
        exp: names the data that AP is measured on; None leaves it out.
        runs: timed forward passes a model.
        paired: how often the images are drawn anew for the differences from the first model; None
            leaves them out.

    Raises:
        UserError: see `yolox.jobs.paired.paired_differences`.
    """
    models = [load_model(path) for path in paths]
    size = _size(models[0], exp)
    image = 255 * torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found: list[Found] = []
    if exp is not None:
        found = [find(loaded, path, exp) for loaded, path in zip(models, paths, strict=True)]
    lines = [
        f"{label} against {labels[0]}: AP50-95 {difference.text()}"
        for label, difference in zip(
            labels[1:], paired_differences(found, paired) if paired else (), strict=False
        )
    ]
    times = measure_latency([loaded.model for loaded in models], image, runs=runs)
    rows = []
    for number, (path, label, loaded, time) in enumerate(
        zip(paths, labels, models, times, strict=True)
    ):
        result = found[number].result if found else None
        rows.append(
            ModelFigures(
                label=label,
                params=count_params(loaded.model),
                macs=count_macs(loaded.model, image)[""],
                file_bytes=path.stat().st_size,
                latency_ms=time,
                ap50_95=result.ap50_95 if result else None,
                ap50=result.ap50 if result else None,
            )
        )
    return rows, lines


def _size(first: LoadedModel, exp: Exp | None) -> tuple[int, int]:
    """Height and width that all is measured at: as given, or those of the first."""
    given = exp is not None and "test_size" in exp.given
    return exp.test_size if exp is not None and given else first.spec.input_size


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    args = make_parser().parse_args(argv)
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
    paths = [resolve_weights(path) for path in args.ckpt]
    with cli.telling_whose_data(args, exp):
        rows, lines = compare(paths, labels, exp, runs=args.runs, paired=args.paired)
    size = "×".join(map(str, _size(load_model(paths[0]), exp)))
    title = f"{size} input, batch 1, float32, {torch.get_num_threads()} threads, PyTorch"
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
