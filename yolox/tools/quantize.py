"""Quantize a checkpoint to int8, and leave layers in float until AP is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from yolox.exp.follow import follow_checkpoint, with_names
from yolox.exp.idle import idle_without_training, tell_idle
from yolox.export.quantize import QuantizeSettings, require_packages
from yolox.export.settings import SUFFIXES
from yolox.jobs.evaluate import ap_evaluation
from yolox.jobs.quantize import QuantizeJob, QuantizeRecord, calibration_images
from yolox.models import load_model
from yolox.tools import cli
from yolox.tools.flags.quantize import make_parser
from yolox.utils.checkpoint import file_digest
from yolox.utils.cores import processor
from yolox.utils.download import resolve_weights


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, quantize, print."""
    args = make_parser().parse_args(argv)
    settings = QuantizeSettings(
        format=args.format,
        method=args.calibration,
        max_drop=args.max_drop,
        keep_anyway=args.keep_anyway,
    )
    require_packages(settings.format)
    cli.refuse_both(args, ("--tsize", "test_size"))
    exp = cli.load_exp(args)
    source = resolve_weights(args.ckpt or exp.output_folder(args.experiment_name) / "best_ckpt.pth")
    cli.tell_idle(("-expn", args.ckpt and args.experiment_name, "-c names the checkpoint"))
    loaded = load_model(source)
    spec = loaded.spec
    if args.tsize:
        spec = dataclasses.replace(spec, input_size=cli.image_size(args.tsize))
    tell_idle(exp, idle_without_training(exp))
    with cli.telling_whose_data(args, exp):
        exp = follow_checkpoint(exp, spec, source, pruned=loaded.is_pruned)
        images = calibration_images(exp, args.calibration_images)
    job = QuantizeJob(
        loaded=with_names(loaded, exp),
        source_sha256=file_digest(source),
        output=args.output_name or _beside(source, settings.format),
        settings=settings,
        size=exp.test_size,
        dynamic=args.dynamic,
        images=images,
        evaluate=ap_evaluation(exp),
    )
    _report(job.run(), settings, exp.test_size)


def _report(record: QuantizeRecord, settings: QuantizeSettings, size: tuple[int, int]) -> None:
    """Print the table, what stayed in float, and what a person should know of them."""
    runtime = "onnxruntime" if settings.format == "onnx" else "openvino"
    title = f"{size[0]}×{size[1]}, batch 1, {runtime}, {processor()}"
    cli.console().print(record.table(title))
    kept = ", ".join(record.kept) or "none"
    logger.info(
        f"in float beside the prediction convolutions: {len(record.kept)} of {record.layers} "
        f"layers: {kept}"
    )
    if record.after.latency_ms >= record.before.latency_ms:
        logger.warning(
            "int8 is not faster than float32 here: without VNNI, or with many small layers, a CPU "
            "gains little; measure it where it is to run"
        )
    if not record.met:
        logger.warning(
            f"AP50-95 falls by {record.drop:.4f}, more than {settings.max_drop:g}: kept as asked"
        )
    logger.info(f"wrote {record.output} ({record.after.file_bytes / 1e6:.2f} MB)")


def _beside(source: Path, kind: str) -> Path:
    return source.with_name(f"{source.stem}_int8{SUFFIXES[kind][0]}")


if __name__ == "__main__":
    cli.entry(main, make_parser)
