"""The flags of tools/prunmodel.py, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from yolox.export.runtimes import LAYER_RUNTIMES
from yolox.jobs.prune_latency import LatencySettings
from yolox.pruning import CRITERIA, PruneConfig, PruningError
from yolox.pruning.config import AGGREGATES, NORMALIZATIONS, PRICES, SCOPES
from yolox.tools import cli
from yolox.utils.documents import read_json

ROUND_TO = 8  # runtimes are slow on odd channel counts
MODES = ("save", "list", "conv", "layer", "global")
STEP_EPOCHS = 10
IMAGES = 64  # for reconstruction
RUNTIME = "onnxruntime"  # for a target in latency


def prune_config(args: argparse.Namespace, seed: int) -> PruneConfig:
    """The flags as a config.

    Raises:
        PruningError: flags that contradict each other.
    """
    budgets = {
        "--ch-sparsity": args.ch_sparsity is not None,
        "--target": args.target is not None,
        "--layer-sparsity": bool(args.layer_sparsity),
        "--plan": args.plan is not None,
    }
    given = [flag for flag, is_given in budgets.items() if is_given]
    if len(given) > 1:
        raise PruningError(f"{' and '.join(given)} each say how much goes: give one of them")
    if args.steps > 1 and (args.plan or args.dry_run):
        raise PruningError("--steps plans each round on what training left: no --plan or --dry-run")
    if args.plan and args.layers:
        raise PruningError("--plan says which layers lose what: it goes without --layers")
    if _in_latency(args) and args.steps > 1:
        raise PruningError("--steps goes towards a target in macs or params, not in latency")
    if args.threads and not (args.runtime or _in_latency(args)):
        raise PruningError("--threads is of a measurement in --runtime: name one")
    if args.openvino_precision != "f32" and args.runtime != "openvino":
        raise PruningError("--openvino-precision is of a measurement in --runtime openvino")
    if not args.latency and (args.runtime or _in_latency(args)):
        raise PruningError("--runtime and a target in latency measure it: no --no-latency")
    ratios = layer_ratios(args.layer_sparsity)
    fields = {
        "ch_sparsity": args.ch_sparsity,
        "reconstruct": IMAGES if args.reconstruct is None else args.reconstruct,
        "bn_recalibrate": args.bn_recalibrate or 0,
        "round_to": args.round_to or ROUND_TO,
    }
    return PruneConfig(
        mode="layer" if ratios else args.mode,
        target=args.target,
        layers=tuple(args.layers),
        layer_sparsity=ratios,
        ignore=tuple(args.ignore),
        **{name: value for name, value in fields.items() if value is not None},
        **{name: getattr(args, name) for name in _SAME_NAMES},
        seed=seed,
    )


def sensitive_layers(path: Path, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of some layers that a file of `tools/sensitivity.py` has no ratio for.

    A file that is missing is that of an analysis which found no ratio for any.

    Raises:
        PruningError: the file cannot be read, or these are all layers.
    """
    fine = layer_ratios([str(path)]) if path.exists() else {}
    found = tuple(layer for layer in layers if layer not in fine)
    if len(found) == len(layers):
        raise PruningError(
            f"every layer is sensitive by {path}, so there is nothing to prune: allow a larger "
            "loss in the analysis, or do without it"
        )
    return found


def latency_settings(args: argparse.Namespace) -> LatencySettings | None:
    """What latencies are measured in; None for PyTorch as it is here."""
    runtime = args.runtime or (RUNTIME if _in_latency(args) else None)
    if runtime is None:
        return None
    threads = args.threads or torch.get_num_threads()
    return LatencySettings(
        runtime=runtime,
        threads=threads,
        round_to=args.round_to,
        openvino_precision=args.openvino_precision,
    )


def _in_latency(args: argparse.Namespace) -> bool:
    return (args.target or "").startswith("latency=")


_SAME_NAMES = (
    *("scope", "importance", "aggregate", "normalize", "per", "rounds"),
    *("min_channels", "max_sparsity", "absorb"),
)


def layer_ratios(words: Sequence[str]) -> dict[str, float]:
    """``PATTERN=RATIO`` words, or one JSON file of them as tools/sensitivity.py writes."""
    if len(words) == 1 and words[0].endswith(".json"):
        try:
            content = read_json(Path(words[0]))
            if not content:
                raise ValueError("it is empty")
            if odd := [value for value in content.values() if type(value) not in (int, float)]:
                raise ValueError(f"{str(odd[0])[:60]!r} is no ratio")
            return {str(pattern): float(ratio) for pattern, ratio in content.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise PruningError(
                f"cannot read layer ratios from {words[0]}: {error}; expected a JSON object "
                'such as {"backbone.*": 0.3}'
            ) from error
    ratios = {}
    for word in words:
        pattern, sign, ratio = word.rpartition("=")
        try:
            ratios[pattern] = float(ratio)
        except ValueError:
            sign = ""
        if not sign or not pattern:
            raise PruningError(
                f"--layer-sparsity takes PATTERN=RATIO, such as 'backbone.*=0.3': {word!r}"
            )
    return ratios


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.make_parser(
        "Save a whole model, list its prunable convolutions, or prune it.",
        "python tools/prunmodel.py --mode global --ch-sparsity 0.4",
    )
    defaults = PruneConfig()
    add = parser.add_argument
    add("--mode", choices=MODES, default="global", help="what to do")
    add("-c", "--ckpt", type=Path, help="checkpoint (the Exp's best_ckpt.pth)")
    add("-o", "--output", type=Path, help="file to write (in the Exp's output folder)")

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
    add(
        "--spare",
        type=Path,
        metavar="RATIOS.json",
        help="keep whole what tools/sensitivity.py found no ratio for (none)",
    )
    add("--importance", choices=tuple(CRITERIA), default=defaults.importance, help="criterion")
    add("--scope", choices=SCOPES, help="how layers share the loss (global; by ratio uniform)")
    add("--aggregate", choices=AGGREGATES, help="over coupled layers (the criterion's)")
    add("--normalize", choices=NORMALIZATIONS, help="scores within a group (the criterion's)")
    add("--per", choices=PRICES, help="what a score is divided by (the criterion's)")
    add("--images", type=cli.positive, default=64, help="training images to score on")
    add(
        "--rounds",
        type=cli.positive,
        default=defaults.rounds,
        help="rounds of scoring, each with the channels of the earlier ones silenced",
    )
    add(
        "--round-to",
        type=cli.positive,
        help=f"channels left: a multiple of it ({ROUND_TO}; the runtime's own step with a target "
        "in latency)",
    )
    add("--min-channels", type=int, default=defaults.min_channels, help="least of a layer")
    add("--max-sparsity", type=float, default=defaults.max_sparsity, help="most a layer may lose")

    after = parser.add_argument_group("accuracy kept without training")
    add = after.add_argument
    add(
        "--absorb",
        action=argparse.BooleanOptionalAction,
        default=defaults.absorb,
        help="constants of removed channels go into the next layer",
    )
    add("--reconstruct", type=int, help=f"images to refit layers on, 0 for none ({IMAGES})")
    add("--bn-recalibrate", type=int, help="images to correct batch norms on, 0 for none (0)")

    iterate = parser.add_argument_group("in steps, with fine-tuning between them")
    add = iterate.add_argument
    add("--steps", type=cli.positive, default=1, help="rounds of pruning; goes on if stopped")
    add(
        "--step-epochs",
        type=cli.positive,
        default=STEP_EPOCHS,
        help="epochs of training between two",
    )

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
        help=f"measure the exported model in it ({RUNTIME} with a target in latency)",
    )
    add("--threads", type=cli.positive, help="of a run in --runtime (a core each)")
    cli.add_openvino_precision(out)
    add("--dry-run", action="store_true", help="write the plan, cut nothing")
    cli.add_exp_arguments(parser)
    return parser.parse_args(argv)
