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
        "evaluate → measure → report. The same line again goes on with a stopped run.",
        "python tools/compress.py -f exps/yolox_voc_s.py --target macs=0.5 --epochs 30",
    )
    add = parser.add_argument
    add("-c", "--ckpt", type=Path, help="trained checkpoint (the Exp's best_ckpt.pth)")
    add("-o", "--output", type=Path, help="folder (EXP_compress in the Exp's output folder)")
    add("--config", type=Path, help="YAML file with these flags, such as 'target: macs=0.5' (none)")
    add("--dry-run", action="store_true", help="print the plan and the time that it would take")
    pruning = parser.add_argument_group("pruning")
    add = pruning.add_argument
    add("--target", default="macs=0.5", help="what shall remain: macs=, params= or latency=")
    add("--importance", default=PruneConfig().importance, help="criterion")
    add("--round-to", type=parts.positive, help="channels left: a multiple of it (as prune does)")
    add("--images", type=parts.positive, default=64, help="training images to score on")
    add(
        "--sensitivity", action="store_true", help="measure layers first, keep sensitive ones whole"
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--epochs", type=parts.positive, default=TUNING_EPOCHS, help="fine-tuning"
    )
    tried = parts.experimental(
        parser, "one cut, refitted, and longer fine-tuning gained as much or more here"
    )
    parts.add_steps(tried, STEP_EPOCHS)
    add = tried.add_argument
    add("--sparsity", type=float, help="strength of sparsity training before pruning (none)")
    add("--sparsity-epochs", type=parts.positive, default=SPARSITY_EPOCHS, help="its length")
    add(
        "--distill",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let the fine-tuned model learn from the trained one",
    )
    deployment = parser.add_argument_group("deployment")
    add = deployment.add_argument
    add("--formats", nargs="*", choices=FORMATS, default=["onnx"], help="files to export")
    add(
        "--runtime",
        choices=LAYER_RUNTIMES,
        help=f"to measure in too; a target in latency is met in it ({LATENCY_RUNTIME})",
    )
    add("--threads", type=parts.positive, default=2, help="of measurements")
    parts.add_openvino_precision(deployment)
    parts.add_exp_arguments(parser)
    return parser
