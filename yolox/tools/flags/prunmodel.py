"""The command line of tools/prunmodel.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.runtimes import LAYER_RUNTIMES
from yolox.pruning import CRITERIA, PruneConfig
from yolox.pruning.config import AGGREGATES, NORMALIZATIONS, PRICES, SCOPES
from yolox.tools.flags import parts
from yolox.utils.choices import LATENCY_RUNTIME

MODES = ("save", "list", "conv", "layer", "global")
STEP_EPOCHS = 10


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Save a whole model, list its prunable convolutions, or prune it.",
        "python tools/prunmodel.py --mode global --ch-sparsity 0.4",
    )
    add = parser.add_argument
    add("--mode", choices=MODES, default="global", help="what to do")
    add("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    add("-o", "--output", type=Path, help="file to write (in the Exp's output folder)")

    add = add_pruning(parser).add_argument
    add(
        "--spare",
        type=Path,
        metavar="RATIOS.json",
        help="keep whole what tools/sensitivity.py found no ratio for (none)",
    )
    add(
        "--allow-empty-blocks",
        action="store_true",
        help="residual blocks may lose their whole branch; what is left adds a constant",
    )
    add_accuracy(parser)

    tried = parts.experimental(parser, "refitting and one cut gained as much or more here")
    add = tried.add_argument
    add("--bn-recalibrate", type=int, help="images to correct batch norms on, 0 for none (0)")
    parts.add_steps(tried, STEP_EPOCHS)

    out = add_output(parser)
    out.add_argument("--dry-run", action="store_true", help="write the plan, cut nothing")
    parts.add_exp_arguments(parser)
    return parser


def add_pruning(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How much goes, and which: the flags of every command that prunes; their last group."""
    defaults = PruneConfig()
    budget = parser.add_argument_group("how much (one of these)")
    add = budget.add_argument
    add(
        "--ch-sparsity",
        type=float,
        help=f"fraction of channels to go ({defaults.ch_sparsity} if none of these is given)",
    )
    add("--target", help="what shall remain: macs=0.5, params=0.5, latency=0.5 or latency=12ms")
    add(
        "--layer-sparsity",
        nargs="+",
        default=[],
        metavar="PATTERN=RATIO",
        help="a ratio for each pattern, the last that matches; or a JSON file of them",
    )
    add("--plan", type=Path, help="a saved plan, edited or not, instead of a new one")

    which = parser.add_argument_group("which")
    add = which.add_argument
    add("--layers", nargs="+", default=[], help="names (mode conv) or patterns (mode layer)")
    add("--ignore", nargs="+", default=[], help="names or patterns of layers that stay whole")
    add("--importance", choices=tuple(CRITERIA), default=defaults.importance, help="criterion")
    add("--scope", choices=SCOPES, help="how layers share the loss (global; by ratio uniform)")
    add("--aggregate", choices=AGGREGATES, help="over coupled layers (the criterion's)")
    add("--normalize", choices=NORMALIZATIONS, help="scores within a group (the criterion's)")
    add("--per", choices=PRICES, help="what a score is divided by (the criterion's)")
    add("--images", type=parts.positive, default=64, help="training images to score on")
    add(
        "--rounds",
        type=parts.positive,
        default=defaults.rounds,
        help="rounds of scoring, each with the channels of the earlier ones silenced",
    )
    add(
        "--round-to",
        type=parts.positive,
        help=f"channels left: a multiple of it ({defaults.round_to}; the runtime's own step with "
        "a target in latency)",
    )
    add("--min-channels", type=int, default=defaults.min_channels, help="least of a layer")
    add("--max-sparsity", type=float, default=defaults.max_sparsity, help="most a layer may lose")
    return which


def add_accuracy(parser: argparse.ArgumentParser) -> None:
    """What keeps accuracy without training."""
    defaults = PruneConfig()
    after = parser.add_argument_group("accuracy kept without training")
    add = after.add_argument
    add(
        "--absorb",
        action=argparse.BooleanOptionalAction,
        default=defaults.absorb,
        help="constants of removed channels go into the next layer",
    )
    add(
        "--reconstruct",
        type=int,
        help=f"images to refit layers on, 0 for none ({defaults.reconstruct})",
    )


def add_output(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What is measured; its group, for more."""
    out = parser.add_argument_group("what is measured and written")
    add = out.add_argument
    add("--eval", action="store_true", help="AP before, after the cut, and compensated")
    add(
        "--latency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time the model before and after",
    )
    add(
        "--runtime",
        choices=LAYER_RUNTIMES,
        help=f"measure the exported model in it ({LATENCY_RUNTIME} with a target in latency)",
    )
    add("--threads", type=parts.positive, help="of a run in --runtime (a core each)")
    parts.add_openvino_precision(out)
    return out
