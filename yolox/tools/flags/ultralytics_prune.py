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
    add("model", type=Path, help=".pt file of Ultralytics")
    add(
        "--mode",
        choices=MODES,
        default="global",
        help=(
            "what to do: list the prunable layers, or prune named convolutions (conv), "
            "layers by pattern (layer) or the whole model (global)"
        ),
    )
    add(
        "--data",
        help=(
            "data set as Ultralytics names it; without it, only what needs no images is possible"
        ),
    )
    add(
        "-o",
        "--output",
        type=Path,
        help="file to write (default: MODEL_pruned.pt beside the model)",
    )
    add(
        "--imgsz",
        type=parts.side,
        help=(
            "side of the images in pixels, for MACs, scores and latency (default: what the "
            "model was trained at)"
        ),
    )
    add(
        "--overwrite",
        action="store_true",
        help=(
            "replace a file that was pruned with other settings or from another model, or trained "
            "since (default: refuse)"
        ),
    )
    add("--seed", type=parts.seed, default=0, help="seed of all random choices")
    add_pruning(parser)
    add_accuracy(parser)
    parts.experimental(parser, "refitting did as well or better in our measurements").add_argument(
        "--bn-recalibrate",
        type=int,
        help="number of images to correct batch norms on; 0 switches it off (default: 0)",
    )
    out = add_output(parser)
    out.add_argument("--dry-run", action="store_true", help="write the plan and stop")
    # What the library calls by name and another command does for our own models.
    functions = {"yolox.pruning.trace_groups": "ultralytics_prune MODEL --mode list"}
    parser.set_defaults(steps=1, allow_empty_blocks=False, functions=functions)
    return parser
