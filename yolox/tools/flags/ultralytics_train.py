"""The command line of tools/ultralytics_train.py."""

from __future__ import annotations

import argparse

from yolox.tools.flags import parts
from yolox.utils.choices import FORMS, SCHEDULES


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Train in Ultralytics' own trainer: a pruned .pt keeps its structure, and any model can be "
        "trained for sparse channels.",
        "python tools/ultralytics_train.py pruned.pt data=my.yaml epochs=100",
        stray="Ultralytics' settings have no dashes and an equals sign, as data=my.yaml",
    )
    add = parser.add_argument
    add("model", help=".pt file of Ultralytics, pruned or not, or one of its YAML files")
    add("opts", nargs="*", default=[], help="Ultralytics' own settings: key=value ...")
    group = parser.add_argument_group("sparsity training (docs/sparsity.md)")
    add = group.add_argument
    add(
        "--sparsity",
        type=float,
        metavar="S",
        help="strength of the penalty on batch-norm scales (default: no penalty)",
    )
    add(
        "--form",
        choices=FORMS,
        default="l1",
        help=("l1 penalizes each scale; group penalizes those together that are pruned together"),
    )
    add("--schedule", choices=SCHEDULES, default="constant", help="strength over the run")
    add(
        "--warmup",
        type=float,
        default=0.0,
        help="fraction of the run in which the strength rises from 0",
    )
    return parser
