"""Time and peak memory of a whole prune: trace, plan, cut, verify, for each model of the family.

    python benchmarks/pruning_speed.py                # all, at full width
    python benchmarks/pruning_speed.py yolox-x

Ratios are to yolox-s in the same run. Memory is the process's peak, so far as the models before it
allow to tell: measure one model a run for a figure of its own.
"""

from __future__ import annotations

import itertools
import resource
import sys
import time

import torch

from yolox.exp import get_exp
from yolox.exp.models import MODELS
from yolox.jobs.calibration import probe
from yolox.models import build_model
from yolox.pruning import (
    PruneConfig,
    apply_plan,
    plan_pruning,
    trace_groups,
    verify_plan,
)


def measure(name: str) -> list[float]:
    torch.manual_seed(0)
    model = build_model(get_exp(None, name).model_spec()).eval()
    x = probe()
    config = PruneConfig(importance="lamp", target="macs=0.5", reconstruct=0, rounds=1)
    times = [time.perf_counter()]
    groups = trace_groups(model, x)
    times.append(time.perf_counter())
    plan = plan_pruning(model, groups, config, count_input=torch.zeros(1, 3, 640, 640))
    times.append(time.perf_counter())
    small = apply_plan(model, groups, plan)
    times.append(time.perf_counter())
    verify_plan(model, groups, plan, x, pruned=small)
    times.append(time.perf_counter())
    return [b - a for a, b in itertools.pairwise(times)]


def main() -> None:
    names = sys.argv[1:] or ["yolox-s", *(name for name in MODELS if name != "yolox-s")]
    base = None
    print("| model | trace | plan | cut | verify | in all | ratio | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        parts = measure(name)
        base = base or sum(parts)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cells = " | ".join(f"{part:.2f} s" for part in [*parts, sum(parts)])
        print(f"| {name} | {cells} | {sum(parts) / base:.1f} × | {peak:.1f} GB |", flush=True)


if __name__ == "__main__":
    main()
