"""The whole road on the pretend accelerator, in a process of its own.

python -m tests.pretend.road FOLDER PART: each step of a part prints a line of JSON, its name and
what it found, or the traceback of its failure. `test_road.py` makes the folder and reads the lines.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.pretend.accelerator import NAME, STATE, Elsewhere, being, register

Step = Callable[[Path], Any]
PARTS: dict[str, list[Step]] = {}


def step(part: str) -> Callable[[Step], Step]:
    """Add a function to a part; those that follow find the files that it left."""

    def add(function: Step) -> Step:
        PARTS.setdefault(part, []).append(function)
        return function

    return add


def main() -> None:
    register()
    root, part = Path(sys.argv[1]), sys.argv[2]
    for function in PARTS[part]:
        if sys.argv[3:] and function.__name__ not in sys.argv[3:]:
            continue
        start = time.process_time()
        try:
            found, error = function(root), ""
        except Exception:  # judged by the test of that step
            found, error = None, traceback.format_exc()
        print(
            json.dumps(
                {
                    "step": function.__name__,
                    "found": found,
                    "error": error,
                    "cpu": time.process_time() - start,
                }
            ),
            flush=True,
        )
    os._exit(0)  # the threads of the backward pass outlive the interpreter otherwise


def _exp(root: Path, **fields: object) -> Any:
    from yolox.exp import get_exp

    exp = get_exp(root / "exp.py")
    fields = {"output_dir": root / "out", **fields}
    exp.merge([str(word) for pair in fields.items() for word in pair])
    return exp


@contextmanager
def _unproved() -> Iterator[None]:
    """Within it cuts are not verified, which is done on the CPU whatever the device."""
    from yolox.pruning import pruner
    from yolox.pruning.tracing import trace

    own = pruner.verify_plan, trace.cut_on_trial
    pruner.verify_plan = lambda *_, **__: 0.0
    trace.cut_on_trial = lambda _, groups, __: groups
    try:
        yield
    finally:
        pruner.verify_plan, trace.cut_on_trial = own


def _model_there(path: Path) -> Any:
    """A checkpoint whose model lives on the device."""
    import dataclasses

    from yolox.models import load_model

    loaded = load_model(path)
    return dataclasses.replace(loaded, model=loaded.model.to(NAME))


@contextmanager
def _counted() -> Iterator[list[Counter[str]]]:
    """What each step of a training waits for, its losses noted."""
    from yolox.core.record import Meter
    from yolox.core.trainer import Trainer

    steps: list[Counter[str]] = []
    own_step, own_add = Trainer.train_step, Meter.add

    def count(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        STATE.waits.clear()
        return own_step(self, *args, **kwargs)

    def add(self: Meter, *args: Any, **kwargs: Any) -> None:
        own_add(self, *args, **kwargs)
        steps.append(Counter(STATE.waits))

    Trainer.train_step, Meter.add = count, add  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        Trainer.train_step, Meter.add = own_step, own_add  # type: ignore[method-assign]


# ---------------------------------------------------------------------------------- training


@step("train")
def trained(root: Path) -> Any:
    """Two epochs at several sizes, one with mosaic, one with L1; waits of each step."""
    import yolox

    with _counted() as steps:
        result = yolox.train(_exp(root, multiscale_range=1), precision="fp32")
    content = torch.load(result.latest_checkpoint, weights_only=True)
    odd = [value for value in _leaves(content) if value.device.type != "cpu"]
    return {
        "waits": [dict(waits) for waits in steps],
        "elsewhere": len(odd),
        "rng": list(content["train"]["device_rng"]),
        "epoch": content["train"]["epoch"],
        "most": STATE.most,
    }


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value)


@step("train")
def mixed(root: Path) -> Any:
    """bf16, then fp16 with its loss scale, gradients of two batches."""
    import yolox

    found = {}
    for precision in ("bf16", "fp16"):
        exp = _exp(root, max_epoch=1, no_aug_epochs=0, accumulate=2, exp_name=precision)
        run = yolox.train(exp, precision=precision)
        content = torch.load(run.latest_checkpoint, weights_only=True)
        found[precision] = [content["recipe"]["precision"], len(content["train"]["precision"])]
    return found


@step("train")
def resumed(root: Path) -> Any:
    """A run goes on there, on the CPU, and there again."""
    import yolox

    epochs = []
    for epoch, device in ((3, "auto"), (4, "cpu"), (5, "auto")):
        exp = _exp(root, max_epoch=epoch)
        run = yolox.train(exp, resume=True, precision="fp32", device=device)
        epochs.append(torch.load(run.latest_checkpoint, weights_only=True)["train"]["epoch"])
    return epochs


@step("train")
def sparse(root: Path) -> Any:
    """The penalty there; and without float64, on the CPU."""
    import yolox
    from yolox.utils.device import has_float64

    found = []
    for float64 in (True, False):
        exp = _exp(
            root, max_epoch=1, no_aug_epochs=0, sparsity=0.01, sparsity_form="group",
            sparsity_shift=0.01, sparsity_proximal=True, exp_name="sparse",
        )  # fmt: skip
        has_float64.cache_clear()
        with being(float64=float64):
            run = yolox.train(exp, precision="fp32")
        weights = torch.load(run.latest_checkpoint, weights_only=True)["train"]["raw_model"]
        found.append(float(sum(w.double().abs().sum() for w in weights.values())))
    return found


@step("train")
def taught(root: Path) -> Any:
    """A pruned student, whose feature maps an adapter widens."""
    import yolox

    out = root / "out"
    yolox.prune(
        out / "tiny/latest_ckpt.pth", output=out / "small.pth", importance="l1", time_it=False,
        overwrite=True,
    )  # fmt: skip
    exp = _exp(root, max_epoch=1, no_aug_epochs=0, finetune_act="")
    run = yolox.train(
        exp, checkpoint=out / "small.pth", teacher=out / "tiny/latest_ckpt.pth", name="taught",
        precision="fp32",
    )  # fmt: skip
    content = torch.load(run.latest_checkpoint, weights_only=True)
    return sorted(content["train"]["objective"])


@step("train")
def full(root: Path) -> Any:
    """Memory for some of the images of a step, which are trained then; and not even for one."""
    import yolox

    exp = _exp(root, max_epoch=1, no_aug_epochs=0, exp_name="full")
    found = []
    for megabytes in (11, 8):
        with being(limit=1_000_000 * megabytes):
            try:
                yolox.train(exp, precision="fp32")
            except ValueError as error:
                found.append(str(error))
            if fits := re.search(r"batch size of (\d+) fits", found[-1]):
                yolox.train(exp, precision="fp32", batch_size=int(fits[1]))
    return found


@step("train")
def lost(root: Path) -> Any:
    """The device fails in the second epoch."""
    import yolox
    from yolox.core.saving import CheckpointFolder

    own = CheckpointFolder.write

    def write(self: CheckpointFolder, *args: Any, **kwargs: Any) -> bool:
        written = own(self, *args, **kwargs)
        STATE.lost = True
        return written

    CheckpointFolder.write = write  # type: ignore[method-assign]
    try:
        yolox.train(_exp(root, exp_name="lost"), precision="fp32")
    except ValueError as error:
        return str(error)
    finally:
        STATE.lost, CheckpointFolder.write = False, own  # type: ignore[method-assign]
    return "nothing"


# ----------------------------------------------------------------------------------- pruning


@step("prune")
def scored(root: Path) -> Any:
    """Every criterion: its scores are on the CPU, whichever device they were computed on."""
    from yolox.jobs.calibration import calibrate, probe
    from yolox.pruning import CRITERIA, PruneConfig, trace_groups

    source = root / "trained.pth"
    there = _model_there(source)
    with _unproved():
        groups = trace_groups(there.model, probe())
    config = PruneConfig(reconstruct=0)
    _, _, calibration = calibrate(_exp(root), there, source, config, 1)
    found = {}
    for name in CRITERIA:
        config = PruneConfig(importance=name, reconstruct=0)
        scores = calibration.scorer(config)(there.model, groups)
        found[name] = sorted({score.device.type for score in scores})
    return found


@step("prune")
def pruned(root: Path) -> Any:
    """By real images: scored, cut, refitted, recalibrated, verified, evaluated and timed there."""
    import yolox

    with _unproved():
        record = yolox.prune(
            root / "trained.pth", _exp(root), output=root / "out/pruned.pth", images=1, rounds=1,
            reconstruct=2, bn_recalibrate=2, ch_sparsity=0.3, evaluate=True, min_channels=1,
            round_to=1, overwrite=True,
        )  # fmt: skip
    odd = [t for t in _leaves(torch.load(record.output, weights_only=True)) if not _is_here(t)]
    return {
        "machine": record.machine,
        "losses": [stage.loss for stage in record.stages],
        "elsewhere": len(odd),
    }


def _is_here(tensor: Tensor) -> bool:
    return not isinstance(tensor, Elsewhere) and tensor.device.type == "cpu"


@step("prune")
def refitted_elsewhere(root: Path) -> Any:
    """Where a cut with images is computed: there, but for want of float64 or memory."""
    from yolox.jobs.prune_run import cut_where_it_fits
    from yolox.utils.device import has_float64

    images, there, found = torch.zeros(4, 3, 32, 32), torch.device(f"{NAME}:0"), []
    for state in ({}, {"float64": False}, {"limit": 1000}):
        has_float64.cache_clear()
        with being(**state):
            seen: list[str] = []
            cut_where_it_fits(lambda x, seen=seen: seen.append(x.device.type), images, there)
            found += seen
    has_float64.cache_clear()
    return found


@step("prune")
def verified(root: Path) -> Any:
    """A model that lives there is cut and verified, and stays there."""
    from yolox.jobs.calibration import probe
    from yolox.pruning import PruneConfig, prune_model

    there = _model_there(root / "trained.pth").model
    config = PruneConfig(importance="l1", ch_sparsity=0.3, reconstruct=0)
    result = prune_model(there, probe().to(NAME), config)
    return sorted({p.device.type for p in result.model.parameters()})


@step("prune")
def in_steps(root: Path) -> Any:
    """Two rounds, and an epoch of training between them."""
    from yolox.core import make_fabric
    from yolox.jobs.prune import prepare_pruning
    from yolox.jobs.prune_steps import prune_in_steps
    from yolox.models import load_model
    from yolox.pruning import PruneConfig

    source, exp = root / "trained.pth", _exp(root)
    config = PruneConfig(importance="l1", reconstruct=0, round_to=1, min_channels=1)
    job = prepare_pruning(
        load_model(source), source, exp, config, root / "out/steps.pth", images=2, time_it=False
    )
    fabric = make_fabric(devices=1, precision="fp32")
    with _unproved():
        record = prune_in_steps(job, exp, fabric, steps=2, epochs=1)
    return [fabric.device.type, record.report.params]


@step("prune")
def sensitive(root: Path) -> Any:
    """What one layer costs, in loss."""
    from yolox.jobs.sensitivity import SensitivitySettings, analyse

    settings = SensitivitySettings(
        ratios=(0.5,), layers=("head.stems.0.conv",), metric="loss", images=1
    )
    with _unproved():
        outcome = analyse(root / "trained.pth", _exp(root), root / "out/loss", settings)
    return outcome.result.points[0].value


# -------------------------------------------------------------------------------- everything else


@step("rest")
def evaluated(root: Path) -> Any:
    """There in fp32 and in half precision, and on the CPU."""
    import yolox

    found = []
    for device, precision in (("auto", "fp32"), ("gpu", "fp16"), ("cpu", "fp32")):
        result = yolox.evaluate(
            root / "trained.pth", _exp(root), device=device, precision=precision, conf=0.001
        )
        found.append(result.ap50_95)
    return found


@step("rest")
def exported(root: Path) -> Any:
    """A model that lives there: the files, and what is found with them, are as from the CPU."""
    from yolox.export.convert import write_model
    from yolox.export.runtime import open_exported
    from yolox.export.settings import ExportSettings

    there = _model_there(root / "trained.pth")
    found = {}
    for form in ("onnx", "torchscript"):
        settings = ExportSettings(format=form, size=(64, 64), decode=True)
        suffix = {"onnx": ".onnx", "torchscript": ".torchscript"}[form]
        path = write_model(there, root / f"out/there{suffix}", settings, source_sha256="")
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
        mine = there.model.eval()(images.to(NAME)).cpu()
        found[form] = float((open_exported(path)(images) - mine).abs().max())
    return found


@step("rest")
def predicted(root: Path) -> Any:
    """Whole images and tiles, with fused layers and half precision; an exported file beside it."""
    from yolox.predict import load

    image = next((root / "data").rglob("*.jpg"))
    found = []
    for options in ({}, {"fuse": True}, {"half": True}, {"device": "cpu"}):
        detector = load(root / "trained.pth", conf=0.3, **options)
        found.append(detector.predict(image)[0].boxes.sum().item())
    tiles = load(root / "trained.pth", conf=0.3).predict(image, tile=64, overlap=16)
    return [*found, len(tiles[0])]


@step("rest")
def compared(root: Path) -> Any:
    """A report, a table of times, and a measurement in PyTorch."""
    from yolox.jobs.measure import MeasureSettings, measure_models
    from yolox.jobs.report.write import PageSettings, write_report
    from yolox.tools import compare

    source, exp = root / "trained.pth", _exp(root)
    settings = MeasureSettings(
        runtimes=("torch", "onnxruntime"), threads=(1,), memory=False, runs=3, warmup=0
    )
    measured = measure_models([source], settings, output=root / "out/bench.json")
    page = PageSettings(bench=root / "out/bench.json", images=1)
    write_report([source], exp, root / "out/report.html", page)
    compare.main(["-c", str(source), "--runs", "3", "--no-eval"])
    about = json.loads((root / "out/bench.json").read_text())["machine"]
    places = [result.measurement.device for result in measured.results]
    return [places, about["accelerator"][:11]]


if __name__ == "__main__":
    main()
