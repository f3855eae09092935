"""The command line of tools/ultralytics_prune.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.tools.flags import parts
from yolox.tools.flags.prunmodel import add_accuracy, add_output, add_pruning

MODES = ("list", "conv", "layer", "global")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Prune a detector of Ultralytics (YOLOv5u, v8, v9, v10, 11, 12, 26). The result is an "
        "ordinary .pt of theirs: yolo val, predict and export take it.",
        "python tools/ultralytics_prune.py best.pt --target macs=0.5 --data my.yaml -o pruned.pt",
    )
    add = parser.add_argument
    add("model", type=Path, help=".pt of Ultralytics")
    add("--mode", choices=MODES, default="global", help="what to do")
    add("--data", help="data set as Ultralytics takes it; without, only what needs no images")
    add("-o", "--output", type=Path, help="file to write (MODEL_pruned.pt beside the model)")
    add(
        "--imgsz",
        type=parts.side,
        help="side of the images, for MACs, scores and latency (what the model was trained at)",
    )
    add("--seed", type=parts.seed, default=0, help="of all that is drawn")
    add_pruning(parser)
    add_accuracy(parser)
    parts.experimental(parser, "refitting gained as much or more here").add_argument(
        "--bn-recalibrate", type=int, help="images to correct batch norms on, 0 for none (0)"
    )
    out = add_output(parser)
    out.add_argument("--dry-run", action="store_true", help="write the plan, cut nothing")
    # What the library calls by name and another command does for our own models.
    functions = {"yolox.pruning.trace_groups": "ultralytics_prune MODEL --mode list"}
    parser.set_defaults(steps=1, allow_empty_blocks=False, functions=functions)
    return parser
