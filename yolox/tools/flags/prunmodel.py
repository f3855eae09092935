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
    add(
        "--mode",
        choices=MODES,
        default="global",
        help=(
            "what to do: save the whole model, list the prunable layers, or prune named "
            "convolutions (conv), layers by pattern (layer) or the whole model (global)"
        ),
    )
    add(
        "-c",
        "--ckpt",
        type=Path,
        help="checkpoint to read (default: best_ckpt.pth in the Exp's output folder)",
    )
    add(
        "-o",
        "--output",
        type=Path,
        help="file to write (default: pruned.pth in the Exp's output folder)",
    )
    add(
        "--overwrite",
        action="store_true",
        help=(
            "replace a file that was pruned with other settings or from another model, or that "
            "holds another one (default: refuse)"
        ),
    )

    add = add_pruning(parser).add_argument
    add(
        "--spare",
        type=Path,
        metavar="RATIOS.json",
        help=(
            "keep those layers whole for which a sensitivity analysis found no acceptable "
            "ratio (default: none)"
        ),
    )
    add(
        "--allow-empty-blocks",
        action="store_true",
        help="let residual blocks lose their whole branch, which is replaced by a constant",
    )
    add(
        "--search",
        type=int,
        default=PruneConfig().search,
        metavar="N",
        help=(
            "try N moves of channels between layers at equal cost, and keep those that lower the "
            "loss after refitting; 0 takes the plan of the scores"
        ),
    )
    add_accuracy(parser)

    tried = parts.experimental(
        parser, "refitting and a single cut did as well or better in our measurements"
    )
    add = tried.add_argument
    add(
        "--bn-recalibrate",
        type=int,
        help="number of images to correct batch norms on; 0 switches it off (default: 0)",
    )
    parts.add_steps(tried, STEP_EPOCHS)

    out = add_output(parser)
    out.add_argument("--dry-run", action="store_true", help="write the plan and stop")
    parts.add_exp_arguments(parser)
    return parser


def add_pruning(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """How much goes, and which: the flags of every command that prunes; their last group."""
    defaults = PruneConfig()
    budget = parser.add_argument_group("how much to remove (give one of these)")
    add = budget.add_argument
    add(
        "--ch-sparsity",
        type=float,
        help=(
            f"fraction of the channels to remove (default: {defaults.ch_sparsity}, if no "
            "other budget is given)"
        ),
    )
    add(
        "--target",
        help="what remains of the model: macs=0.5, params=0.5, latency=0.5 or latency=12ms",
    )
    add(
        "--layer-sparsity",
        nargs="+",
        default=[],
        metavar="PATTERN=RATIO",
        help=(
            "fraction to remove from the layers that match each pattern, the last match "
            "counts; or a JSON file of them"
        ),
    )
    add(
        "--plan",
        type=Path,
        help="carry out this saved plan, edited or not, instead of making a new one",
    )

    which = parser.add_argument_group("which channels to remove")
    add = which.add_argument
    add(
        "--layers",
        nargs="+",
        default=[],
        help="layers to prune: names (mode conv) or patterns (mode layer)",
    )
    add("--ignore", nargs="+", default=[], help="names or patterns of layers that stay whole")
    add(
        "--importance",
        choices=tuple(CRITERIA),
        default=defaults.importance,
        help="criterion that decides which channels are removed",
    )
    add(
        "--scope",
        choices=SCOPES,
        help=(
            "which channels compete: all of the model, those of a layer (uniform), or those "
            "of like layers (isomorphic) (default: global, or uniform for a ratio in modes "
            "conv and layer)"
        ),
    )
    add(
        "--aggregate",
        choices=AGGREGATES,
        help="how the scores of coupled layers become one (default: the criterion's)",
    )
    add(
        "--normalize",
        choices=NORMALIZATIONS,
        help="what the scores of a group are divided by (default: the criterion's)",
    )
    add(
        "--per",
        choices=PRICES,
        help=(
            "what a score is divided by: nothing, the cost that removing the channel saves, "
            "or the memory it saves (default: the criterion's; of taylor cost where less than "
            "a third of the MACs shall remain)"
        ),
    )
    add(
        "--images",
        type=parts.positive,
        default=64,
        help="number of training images used for scores",
    )
    add(
        "--rounds",
        type=parts.positive,
        default=defaults.rounds,
        help="number of rounds of scoring; each silences the channels chosen so far",
    )
    add(
        "--round-to",
        type=parts.positive,
        help=(
            f"keep a multiple of this number of channels (default: {defaults.round_to}, or "
            "the runtime's own step with a target in latency)"
        ),
    )
    add(
        "--min-channels",
        type=int,
        default=defaults.min_channels,
        help="smallest number of channels that a layer keeps",
    )
    add(
        "--max-sparsity",
        type=float,
        default=defaults.max_sparsity,
        help="largest fraction of its channels that a layer may lose",
    )
    return which


def add_accuracy(parser: argparse.ArgumentParser) -> None:
    """What keeps accuracy without training."""
    defaults = PruneConfig()
    after = parser.add_argument_group("AP before fine-tuning")
    add = after.add_argument
    add(
        "--absorb",
        action=argparse.BooleanOptionalAction,
        default=defaults.absorb,
        help="move the constant output of a removed channel into the next layer",
    )
    add(
        "--reconstruct",
        type=int,
        help=(
            "number of images to refit the remaining weights on; 0 switches it off "
            f"(default: {defaults.reconstruct})"
        ),
    )
    add(
        "--held-back",
        type=int,
        default=defaults.held_back,
        help=(
            "number of further images that decide which layers keep their refit, at most a third "
            "of all; 0 keeps every refit"
        ),
    )


def add_output(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What is measured; its group, for more."""
    out = parser.add_argument_group("what is measured and written")
    add = out.add_argument
    add(
        "--eval",
        action="store_true",
        help="measure AP before, after the bare cut, and after refitting",
    )
    add(
        "--latency",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time the model before and after",
    )
    add(
        "--runtime",
        choices=LAYER_RUNTIMES,
        help=(
            f"runtime to measure the exported model in (default: PyTorch; {LATENCY_RUNTIME} "
            "with a target in latency)"
        ),
    )
    add(
        "--threads",
        type=parts.positive,
        help="number of threads in --runtime (default: one for each core)",
    )
    parts.add_openvino_precision(out)
    parts.add_device(parser)
    return out
