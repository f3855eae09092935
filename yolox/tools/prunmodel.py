"""Save a whole model, list its prunable convolutions, or prune it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from yolox.data import DataError
from yolox.exp import Exp
from yolox.models import LoadedModel, checkpoint_payload, load_model
from yolox.pruning import PruneConfig, PruneResult, PruningError, prune_model, trace_groups
from yolox.pruning.plan import IMPORTANCES
from yolox.tools import cli
from yolox.tools.eval import follow_checkpoint
from yolox.utils.checkpoint import file_digest, save_checkpoint
from yolox.utils.model_utils import count_macs, count_params
from yolox.utils.progress import track

Batches = Iterable[tuple[Tensor, Tensor]]

ROUND_TO = 8  # runtimes are slow on odd channel counts
MODES = ("save", "list", "conv", "layer", "global")
CALIBRATION_BATCH = 1  # a Taylor score is a mean of squares: single images tell most


def save_whole_model(loaded: LoadedModel, output: Path) -> Path:
    """Write structure and weights as one safe file, without training state; returns its path."""
    save_checkpoint(output, checkpoint_payload(loaded.model, loaded.spec, loaded.pruning))
    return output


def conv_pruning(
    loaded: LoadedModel,
    layers: Sequence[str],
    ch_sparsity: float,
    *,
    batches: Batches | None = None,
    **options: Any,
) -> PruneResult:
    """Prune the named convolutions, each by the ratio; `options` are `PruneConfig` fields."""
    config = PruneConfig(mode="conv", layers=tuple(layers), ch_sparsity=ch_sparsity, **options)
    return prune(loaded, config, batches)


def layer_pruning(
    loaded: LoadedModel,
    layers: Sequence[str],
    ch_sparsity: float,
    *,
    batches: Batches | None = None,
    **options: Any,
) -> PruneResult:
    """Prune all convolutions whose names match a pattern, each by the ratio."""
    config = PruneConfig(mode="layer", layers=tuple(layers), ch_sparsity=ch_sparsity, **options)
    return prune(loaded, config, batches)


def global_pruning(
    loaded: LoadedModel, ch_sparsity: float, *, batches: Batches | None = None, **options: Any
) -> PruneResult:
    """Prune the least important channels of the whole model."""
    config = PruneConfig(mode="global", ch_sparsity=ch_sparsity, **options)
    return prune(loaded, config, batches)


def prune(loaded: LoadedModel, config: PruneConfig, batches: Batches | None = None) -> PruneResult:
    """Prune a loaded model; the argument is not touched.

    Args:
        config: what to prune, by how much, on what grounds.
        batches: (images, targets) for a criterion that needs data; gone through once a round.

    Raises:
        PruningError: see `yolox.pruning.prune_model`.
    """
    return prune_model(
        loaded.model,
        _probe(),
        config,
        batches=batches,
        loss=_total_loss,
        count_input=torch.zeros(1, 3, *loaded.spec.input_size),
    )


def _probe() -> Tensor:
    """A small random image: what tracing and verification need."""
    return 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _total_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, targets = batch
    loss: Tensor = model.loss(images, targets)["total_loss"]  # type: ignore[operator]
    return loss


def list_layers(loaded: LoadedModel) -> Table:
    """Every prunable convolution: channels, the group it is coupled in, its share of the MACs."""
    groups = trace_groups(loaded.model, _probe())
    macs = count_macs(loaded.model, torch.zeros(1, 3, *loaded.spec.input_size))
    table = Table(title="Prunable convolutions")
    for column in ("name", "channels", "coupled with", "MACs"):
        table.add_column(column, justify="left" if column in ("name", "coupled with") else "right")
    rows = {
        member.name: (group, member.index.size) for group in groups for member in group.producers
    }
    for name in dict(loaded.model.named_modules()):
        if name in rows:
            group, channels = rows[name]
            others = len(group.producers) - 1
            coupled = f"{group.name} (+{others})" if others else "–"
            table.add_row(name, str(channels), coupled, f"{macs[name] / macs['']:.1%}")
    return table


def write_pruned(result: PruneResult, loaded: LoadedModel, source: Path, output: Path) -> None:
    """Write the pruned checkpoint, and its plan beside it as JSON."""
    entry = {
        "plan": result.plan.to_dict(),
        "report": result.report.to_dict(),
        "source": str(source),
        "source_sha256": file_digest(source),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    model = result.model
    save_checkpoint(output, checkpoint_payload(model, loaded.spec, [*loaded.pruning, entry]))
    result.plan.save(output.with_suffix(".plan.json"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, do what the mode says, print."""
    args = _parse(argv)
    exp = cli.load_exp(args)
    folder = exp.output_folder()
    source = args.ckpt or folder / "best_ckpt.pth"
    loaded = load_model(source)
    if args.mode == "save":
        output = save_whole_model(loaded, args.output or folder / "whole_model.pth")
        logger.info(f"whole model ({count_params(loaded.model):,} parameters) in {output}")
        return
    console = Console(width=None if Console().is_terminal else 160)
    if args.mode == "list":
        console.print(list_layers(loaded))
        return
    output = args.output or folder / "pruned.pth"
    if output.resolve() == source.resolve():
        raise PruningError(f"{output} is the checkpoint to prune: name another file with -o")
    config = PruneConfig(
        mode=args.mode,
        layers=tuple(args.layers),
        ch_sparsity=args.ch_sparsity,
        target=args.target,
        importance=args.importance,
        rounds=args.rounds,
        round_to=args.round_to,
        min_channels=args.min_channels,
        max_sparsity=args.max_sparsity,
    )
    batches = None
    if config.importance != "l1":
        follow_checkpoint(exp, loaded.spec, keep=args.opts[::2])
        batches = _calibration(exp, args.images)
    result = prune(loaded, config, batches)
    write_pruned(result, loaded, source, output)
    report = result.report
    console.print(report.table())
    logger.info(
        f"verified: pruned and masked outputs differ by {report.difference:.0e} (relative, float64)"
    )
    logger.info(
        f"params {report.params[0]:,} → {report.params[1]:,}, "
        f"MACs {report.macs[0]:,} → {report.macs[1]:,}, written to {output}"
    )
    logger.info(
        f"fine-tune it: python tools/train.py -f {args.exp_file or cli.DEFAULT_EXP} -c {output}"
    )


class _Shown:
    """Batches with a progress bar each time they are gone through."""

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return track(self._batches, "Scoring")


def _calibration(exp: Exp, images: int) -> Batches:
    try:
        batches = exp.calibration_batches(images, CALIBRATION_BATCH)
    except DataError as error:
        raise PruningError(f"{error}. Or score without data: --importance l1") from error
    if not batches:
        raise PruningError("the training split has no image with objects to score channels on")
    logger.info(f"scoring channels on {len(batches)} training images")
    return _Shown(batches)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.make_parser(
        "Save a whole model, list its prunable convolutions, or prune it.",
        "python tools/prunmodel.py --mode global --ch-sparsity 0.4",
    )
    defaults = PruneConfig()
    parser.add_argument("--mode", choices=MODES, default="global", help="what to do")
    parser.add_argument(
        "--ch-sparsity", type=float, default=defaults.ch_sparsity, help="fraction of channels to go"
    )
    parser.add_argument(
        "--target", help="instead of a ratio, what shall remain: macs=0.5 or params=0.5"
    )
    parser.add_argument(
        "--layers", nargs="+", default=[], help="names (mode conv) or patterns (mode layer)"
    )
    parser.add_argument(
        "--importance", choices=IMPORTANCES, default=defaults.importance, help="criterion"
    )
    parser.add_argument(
        "--images", type=cli.positive, default=64, help="training images to score on (not for l1)"
    )
    parser.add_argument(
        "--rounds",
        type=cli.positive,
        default=defaults.rounds,
        help="rounds of scoring, each with the channels of the earlier ones silenced",
    )
    parser.add_argument(
        "--round-to", type=cli.positive, default=ROUND_TO, help="channels left are a multiple of it"
    )
    parser.add_argument(
        "--min-channels", type=int, default=defaults.min_channels, help="least channels of a layer"
    )
    parser.add_argument(
        "--max-sparsity", type=float, default=defaults.max_sparsity, help="most a layer may lose"
    )
    parser.add_argument("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    parser.add_argument(
        "-o", "--output", type=Path, help="file to write (in the Exp's output folder)"
    )
    cli.add_exp_arguments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.entry(main)
