"""The flags of tools/prunmodel.py, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from yolox.jobs.prune_latency import LatencySettings
from yolox.pruning import PruneConfig, PruningError
from yolox.pruning.ratios import read_ratios
from yolox.utils.choices import LATENCY_RUNTIME


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
    if search := getattr(args, "search", 0):
        if args.plan:
            raise PruningError("--plan says what goes: it goes without --search")
        if args.steps > 1:
            raise PruningError("--search looks for one plan: it goes without --steps")
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
        "reconstruct": args.reconstruct,
        "bn_recalibrate": args.bn_recalibrate,
        "round_to": args.round_to,
        "search": search,
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


def latency_settings(args: argparse.Namespace) -> LatencySettings | None:
    """What latencies are measured in; None for PyTorch as it is here."""
    runtime = args.runtime or (LATENCY_RUNTIME if _in_latency(args) else None)
    if runtime is None:
        return None
    threads = args.threads or torch.get_num_threads()
    return LatencySettings(
        runtime=runtime,
        threads=threads,
        round_to=args.round_to,
        openvino_precision=args.openvino_precision,
        device=args.device,
    )


def _in_latency(args: argparse.Namespace) -> bool:
    return (args.target or "").startswith("latency=")


def given_fields(args: argparse.Namespace, parser: argparse.ArgumentParser) -> set[str]:
    """The fields of a config that differ from what the parser makes of no flags."""
    names = PruneConfig.__dataclass_fields__.keys() & vars(args).keys()
    return {name for name in names if getattr(args, name) != parser.get_default(name)}


_SAME_NAMES = (
    "scope",
    "importance",
    "aggregate",
    "normalize",
    "per",
    "rounds",
    "min_channels",
    "max_sparsity",
    "allow_empty_blocks",
    "absorb",
    "held_back",
)


def layer_ratios(words: Sequence[str]) -> dict[str, float]:
    """``PATTERN=RATIO`` words, or one JSON file of them as tools/sensitivity.py writes."""
    if len(words) == 1 and words[0].endswith(".json"):
        return read_ratios(Path(words[0]))
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
