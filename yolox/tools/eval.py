"""Evaluate a checkpoint, or a file exported from one, on a data set."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from loguru import logger

from yolox.core import make_fabric
from yolox.data.tiles import whole_images
from yolox.evaluators import (
    EvalSample,
    Evaluator,
    Inference,
    Timing,
    coco_rows,
    evaluate_detections,
)
from yolox.evaluators.report import write_report
from yolox.evaluators.tiled import merge_to_whole
from yolox.exp import Exp
from yolox.exp.follow import follow_checkpoint
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.export import ExportedModel, is_exported
from yolox.models import ModelSpec, load_model
from yolox.tools import cli
from yolox.tools.exported import open_file
from yolox.tools.flags.eval import make_parser
from yolox.tools.processes import join_machines
from yolox.utils.checkpoint import file_digest
from yolox.utils.device import machine, resolve_precision
from yolox.utils.dist import is_main_process
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.locks import claimed
from yolox.utils.model_utils import fuse_model


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, evaluate, print."""
    args = make_parser().parse_args(argv)
    _refuse(args)
    exp = cli.load_exp(args)
    join_machines(args)
    fabric = make_fabric(
        devices=1 if args.speed else args.devices, num_nodes=args.num_machines, precision="fp32"
    )
    fabric.launch()
    if args.seed is not None:
        torch.manual_seed(args.seed)
    folder = exp.output_folder(args.experiment_name)
    source: Path = args.ckpt or folder / "best_ckpt.pth"
    if not is_exported(source):
        source = resolve_weights(source)
    model, spec, pruned = _load(source, args)
    exp = _prepare(exp, source, spec, args, pruned=pruned)
    distributed = fabric.world_size > 1
    if fabric.is_global_zero:
        tell_idle(exp, idle_without_training(exp, test=args.test))
    evaluator = exp.get_evaluator(
        1 if args.speed else args.batch_size, distributed, args.test, args.legacy
    )
    exported = model if isinstance(model, ExportedModel) else None
    if exported and (loss := exported.nms_loss(exp.test_conf, exp.nmsthre)):
        logger.warning(loss)
    precision = exported.precision if exported else _precision(args, fabric.device)
    inference = evaluator.infer(
        model,
        device=fabric.device,
        precision=None if exported else precision,
        distributed=distributed,
    )
    if is_main_process():
        about = _about(args, exp, source, fabric) | {
            "precision": precision,
            "runtime": exported.runtime if exported else "torch",
            "command": f"python tools/eval.py {shlex.join(sys.argv[1:] if argv is None else argv)}",
        }
        _report(args, evaluator, inference, about, folder / "eval" / source.stem)


def _report(
    args: argparse.Namespace,
    evaluator: Evaluator,
    inference: Inference,
    about: dict[str, Any],
    folder: Path,
) -> None:
    """Print the figures, write the files that were asked for; pictures by default in `folder`."""
    samples: Sequence[EvalSample] = evaluator.dataset.samples
    detections, headline = inference.detections, evaluator.headline
    if args.whole_images:
        wholes = whole_images(evaluator.dataloader.dataset.samples, evaluator.dataset.class_names)
        pairs = merge_to_whole(wholes, detections, evaluator.nmsthre)
        # COCO's rule looks at 100 detections an image; a large one holds more objects than that.
        samples, detections, headline = wholes, [found for _, found in pairs], "voc12"
    if args.save_detections:
        rows = coco_rows(detections, evaluator.category_ids)
        with replacing(args.save_detections) as temporary:
            temporary.write_text(json.dumps(rows), encoding="utf-8")
        logger.info(f"{len(rows):,} detections in {args.save_detections}")
    result = evaluate_detections(
        samples,
        detections,
        evaluator.dataset.class_names,
        headline=headline,
        timing=inference.timing,
    )
    logger.info("\n" + result.summary(order=args.sort))
    if args.speed:
        logger.info(_speed(inference.timing, about))
    if args.plots is not None:
        folder = Path(args.plots) if args.plots else folder
        with claimed(folder):
            best = write_report(folder, result, samples, detections, about)
        if best:
            logger.info(
                f"best mean F1 at IoU 0.5: {best.f1:.3f} with score ≥ {best.score:g} "
                f"(precision {best.precision:.3f}, recall {best.recall:.3f})"
            )
        logger.info(f"figures and pictures in {folder}")


def _refuse(args: argparse.Namespace) -> None:
    if args.trt:
        raise UserError(
            "--trt: TensorRT is not supported; evaluate the checkpoint without it, and convert the "
            "file of tools/export.py with TensorRT's own tools"
        )
    if args.openvino_precision != "f32" and (args.ckpt is None or args.ckpt.suffix != ".xml"):
        raise UserError("--openvino-precision is of OpenVINO's files (.xml): leave it out")
    cli.refuse_both(args, ("--tsize", "test_size"), ("--conf", "test_conf"), ("--nms", "nmsthre"))
    cli.one_precision(args, "fp32")
    if args.speed and ((args.devices or 1) > 1 or args.num_machines > 1):
        raise UserError("--speed times one process: leave out -d and --num_machines")


def _load(source: Path, args: argparse.Namespace) -> tuple[torch.nn.Module, ModelSpec, bool]:
    """The model of a checkpoint, or an exported file in its place; its spec; if it is pruned."""
    if is_exported(source):
        flags = {
            "--fuse": args.fuse,
            "--fp16": args.fp16,
            f"--precision {args.precision}": args.precision != "fp32",
        }
        exported, spec = open_file(
            source, tsize=args.tsize, flags=flags, openvino_precision=args.openvino_precision
        )
        return exported, spec, exported.info.pruned
    loaded = load_model(source)
    model = fuse_model(loaded.model) if args.fuse else loaded.model
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, loaded.spec, loaded.is_pruned


def _prepare(
    exp: Exp, source: Path, spec: ModelSpec, args: argparse.Namespace, *, pruned: bool
) -> Exp:
    """The Exp with the evaluation of the checkpoint and the flags."""
    if args.tsize:
        spec = dataclasses.replace(spec, input_size=(args.tsize, args.tsize))
    followed = follow_checkpoint(exp, spec, source, pruned=pruned)
    followed.put(
        test_conf=exp.test_conf if args.conf is None else args.conf,
        nmsthre=exp.nmsthre if args.nms is None else args.nms,
    )
    return followed


def _precision(args: argparse.Namespace, device: torch.device) -> str:
    if args.fp16:
        return "fp16" if device.type == "cuda" else "bf16"
    try:
        return resolve_precision(args.precision, device)
    except ValueError as error:
        raise UserError(str(error)) from error


def _speed(timing: Timing, about: Mapping[str, Any]) -> str:
    height, width = about["test_size"]
    images_per_s = 1000 / (timing.forward_ms + timing.postprocess_ms)
    return (
        f"speed at batch 1, {height}×{width}, {about['precision']}: forward "
        f"{timing.forward_ms:.2f} ms, NMS {timing.postprocess_ms:.2f} ms, {images_per_s:.1f} "
        f"images/s (mean of {timing.images} images after one to warm up) on {about['machine']}"
    )


def _about(args: argparse.Namespace, exp: Exp, source: Path, fabric: Fabric) -> dict[str, Any]:
    """What was evaluated, how, where and when."""
    device = fabric.device
    on_gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{fabric.world_size} × {on_gpu}{machine()}",
        "checkpoint": str(source),
        "checkpoint_sha256": file_digest(source),
        "exp": exp.exp_name,
        "test_size": list(exp.test_size),
        "conf": exp.test_conf,
        "nms": exp.nmsthre,
        "batch_size": 1 if args.speed else args.batch_size,
        "fused": args.fuse,
    }


if __name__ == "__main__":
    cli.entry(main)
