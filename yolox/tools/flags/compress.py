"""The command line of tools/compress.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolox.export.runtimes import LAYER_RUNTIMES
from yolox.export.settings import FORMATS
from yolox.pruning import PruneConfig
from yolox.tools.flags import parts
from yolox.utils.choices import LATENCY_RUNTIME, SPARSITY_EPOCHS, STEP_EPOCHS, TUNING_EPOCHS


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = parts.make_parser(
        "Compress a trained checkpoint: (sparsity) → (sensitivity) → prune → fine-tune → export → "
        "evaluate → measure → report. The same command continues a stopped run.",
        "python tools/compress.py -f exps/yolox_voc_s.py --target macs=0.5 --epochs 30",
    )
    add = parser.add_argument
    add(
        "-c",
        "--ckpt",
        type=Path,
        help=(
            "trained checkpoint to start from (default: best_ckpt.pth in the Exp's output folder)"
        ),
    )
    add(
        "-o",
        "--output",
        type=Path,
        help="folder to write into (default: <exp_name>_compress in the Exp's output folder)",
    )
    add(
        "--config",
        type=Path,
        help=(
            "YAML file with these flags, such as 'target: macs=0.5'; the command line "
            "overrides it (default: none)"
        ),
    )
    add(
        "--dry-run", action="store_true", help="print the plan and the time it would take, and stop"
    )
    pruning = parser.add_argument_group("pruning")
    add = pruning.add_argument
    add(
        "--target",
        default="macs=0.5",
        help="what remains: macs=0.5, params=0.5, latency=0.5 or latency=12ms",
    )
    add(
        "--importance",
        default=PruneConfig().importance,
        help="criterion that decides which channels are removed",
    )
    add(
        "--round-to",
        type=parts.positive,
        help="keep a multiple of this number of channels (default: that of yolox prune)",
    )
    add(
        "--images",
        type=parts.positive,
        default=64,
        help="number of training images used for scores",
    )
    add(
        "--sensitivity",
        action="store_true",
        help="measure the sensitivity of layers first, and keep sensitive layers whole",
    )
    add(
        "--refit",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=(
            "refit the layers after the cut (default: yes, but not towards an eighth to a third of "
            "the MACs when 700 steps of fine-tuning follow)"
        ),
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs", type=parts.positive, default=TUNING_EPOCHS, help="epochs of fine-tuning"
    )
    tried = parts.experimental(
        parser,
        "one cut with refitting, and longer fine-tuning, did as well or better in our measurements",
    )
    parts.add_steps(tried, STEP_EPOCHS)
    add = tried.add_argument
    add(
        "--sparsity",
        type=float,
        help="strength of sparsity training before pruning (default: no sparsity training)",
    )
    add(
        "--sparsity-epochs",
        type=parts.positive,
        default=SPARSITY_EPOCHS,
        help="epochs of sparsity training",
    )
    add(
        "--distill",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let the fine-tuned model learn from the trained one",
    )
    deployment = parser.add_argument_group("deployment")
    add = deployment.add_argument
    add("--formats", nargs="*", choices=FORMATS, default=["onnx"], help="formats to export")
    add(
        "--runtime",
        choices=LAYER_RUNTIMES,
        help=(
            "runtime to measure in as well; a target in latency is met in it (default: "
            f"{LATENCY_RUNTIME})"
        ),
    )
    add("--threads", type=parts.positive, default=2, help="number of threads of measurements")
    parts.add_openvino_precision(deployment)
    parts.add_device(parser)
    parts.add_exp_arguments(parser)
    return parser
