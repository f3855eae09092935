"""From a model to a file: converted, described, run in its own runtime, compared, and then kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolox.export import onnx, openvino, torchscript
from yolox.export.graph import Deployed
from yolox.export.metadata import ExportInfo
from yolox.export.ncnn import write_ncnn
from yolox.export.parity import FP16, FP32, Parity, measure_detections, measure_parity
from yolox.export.runtime import open_exported
from yolox.export.seal import COMPANION_DIGESTS, SEAL_KEY, UNSEALED_DIGEST, seal
from yolox.export.settings import ExportError, ExportSettings, optional_packages
from yolox.models import LoadedModel
from yolox.utils.files import replacing_together
from yolox.utils.progress import track
from yolox.utils.scratch import scratch_folder


def write_model(
    loaded: LoadedModel, output: str | Path, settings: ExportSettings, *, source_sha256: str = ""
) -> Path:
    """Write a model without comparing it; see `export_model`. Returns the file that one opens."""
    with placing(Path(output), settings) as file:
        _write(loaded, file, settings, source_sha256)
    return Path(output)


def export_model(
    loaded: LoadedModel,
    output: str | Path,
    settings: ExportSettings,
    batches: Iterable[Tensor],
    *,
    source_sha256: str = "",
) -> Parity:
    """Write a model once its own runtime has been seen to compute with it what PyTorch does.

    Args:
        loaded: dense or pruned; not touched.
        output: the file that one opens, with its format's suffix; its folder is made if need be,
            and what else the format has is put beside it. What was there stays on any error.
        settings: see there.
        batches: images to compare on, float32 (B, 3, H, W), of a size and as many a batch as the
            file takes.
        source_sha256: of the checkpoint, for the record.

    Raises:
        ExportError: a package is missing, the place cannot be written to, the format cannot do
            what is asked, or the runtime's outputs differ.
    """
    with placing(Path(output), settings) as file:
        if settings.nms:
            parity = _export_with_nms(loaded, file, settings, list(batches), source_sha256)
        else:
            parity = _write_and_compare(loaded, file, settings, batches, source_sha256)
        if parity.problem:
            way_out = (
                "Try another `opset` or `slim=False`" if settings.slim else "Try another `format`"
            )
            raise ExportError(
                f"the file for {settings.format} does not compute what PyTorch does, so {output} "
                f"was not written: {parity.problem}. {way_out}"
            )
    return parity


@contextmanager
def placing(output: Path, settings: ExportSettings) -> Iterator[Path]:
    """A path of the output's name in a temporary folder, to write an export's files to.

    At the end they get their places; on an exception what was there stays.
    """
    files = settings.beside(output)
    with (
        replacing_together(files, ExportError) as targets,
        scratch_folder() as folder,
    ):
        yield folder / output.name
        for file, target in zip(files, targets, strict=True):
            shutil.copyfile(folder / file.name, target)


def _write(
    loaded: LoadedModel,
    file: Path,
    settings: ExportSettings,
    source_sha256: str,
    network: Any = None,
) -> None:
    """Write a model's file; `network` is the part that `onnx.convert` makes, if it is there."""
    metadata = ExportInfo.of(loaded, settings, source_sha256).to_metadata()
    if settings.format == "onnx":
        (checker,) = optional_packages("onnx.checker")
        proto = onnx.to_onnx(loaded.model, settings, network)
        onnx.stamp(proto, metadata)
        checker.check_model(proto)
        onnx.save(proto, file)
    elif settings.format == "openvino":
        model = openvino.to_openvino(loaded.model, settings, network)
        openvino.stamp(model, metadata)
        openvino.save(model, file, half=settings.half)
    elif settings.format == "ncnn":
        write_ncnn(loaded.model, file, settings)
        digests = {SEAL_KEY: UNSEALED_DIGEST, **COMPANION_DIGESTS[".param"]}
        text = json.dumps(metadata | digests, indent=1, ensure_ascii=False)
        file.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        seal(file)
    else:
        torchscript.save(torchscript.to_torchscript(loaded.model, settings), file, metadata)


def _write_and_compare(
    loaded: LoadedModel,
    file: Path,
    settings: ExportSettings,
    batches: Iterable[Tensor],
    source_sha256: str,
    network: Any = None,
) -> Parity:
    _write(loaded, file, settings, source_sha256, network)
    exported = open_exported(file)
    # Not folded: folding batch norms and Focus is part of what is proven.
    reference = Deployed(loaded.model, decode=settings.decode).eval()
    return measure_parity(
        reference,
        lambda x: torch.from_numpy(exported.run(x.numpy())),
        track(batches, "Comparing"),
        decode=exported.decode,
        num_classes=loaded.spec.num_classes,
        conf=settings.conf,
        nms=settings.nms_iou,
        tolerance=FP16 if settings.half else FP32,
    )


def _export_with_nms(
    loaded: LoadedModel,
    file: Path,
    settings: ExportSettings,
    batches: list[Tensor],
    source_sha256: str,
) -> Parity:
    """Outputs are compared without NMS, for it hides most of them, then detections with it."""
    network = onnx.convert(loaded.model, settings)  # which takes most of the time
    plain = replace(settings, nms=False)
    parity = _write_and_compare(loaded, file, plain, batches, source_sha256, network)
    if parity.problem:
        return parity
    _write(loaded, file, settings, source_sha256, network)
    detections, unmatched = measure_detections(
        Deployed(loaded.model, decode=True).eval(),
        open_exported(file),
        batches,
        num_classes=loaded.spec.num_classes,
        conf=settings.conf,
        nms=settings.nms_iou,
        tolerance=parity.tolerance,
    )
    return replace(parity, detections=detections, unmatched=unmatched)
