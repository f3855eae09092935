"""What only a real accelerator can show; skipped where there is none. `make test-gpu` runs it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import yolox
from tests.runs import write_exp
from yolox.exp import get_exp
from yolox.models import load_model
from yolox.utils import device as devices
from yolox.utils.device import accelerator, milliseconds, peak_memory, reset_peak, resolve_device

pytestmark = pytest.mark.skipif(accelerator() is None, reason="needs an accelerator")


def test_a_run_there_goes_on_here(devkit: Path, tmp_path: Path) -> None:
    exp = get_exp(write_exp(tmp_path / "exp.py", devkit, tmp_path / "out"))
    run = yolox.train(exp, precision="fp32")
    assert next(load_model(run.latest_checkpoint).model.parameters()).device.type == "cpu"
    exp.merge(["max_epoch", "3"])
    yolox.train(exp, resume=True, precision="fp32", device="cpu")
    there, here = (
        yolox.evaluate(run.latest_checkpoint, exp, device=place, conf=0.001).ap50_95
        for place in ("auto", "cpu")
    )
    assert there == pytest.approx(here, abs=0.01)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(precision: str, devkit: Path, tmp_path: Path) -> None:
    exp = get_exp(write_exp(tmp_path / "exp.py", devkit, tmp_path / "out"))
    run = yolox.train(exp, precision=precision)
    weights = load_model(run.latest_checkpoint).model.state_dict().values()
    assert all(math.isfinite(float(w.double().sum())) for w in weights)


def test_time_and_memory_of_a_product() -> None:
    place = resolve_device()
    a = torch.rand(2048, 2048, device=place)
    once, in_a_row = (milliseconds(lambda: a @ a, place, repeats=n) for n in (1, 20))
    assert 0 < in_a_row < 1000
    assert 0 < once < 10_000
    reset_peak(place)
    held = peak_memory(place)
    kept = a @ a
    if held is not None:
        assert (peak_memory(place) or 0) - held >= kept.numel() * kept.element_size()
    assert devices.device_name(place)
    assert devices.driver_version(place)


def test_a_batch_that_does_not_fit(devkit: Path, tmp_path: Path) -> None:
    place = resolve_device()
    if place.type != "cuda":
        pytest.skip("only CUDA can be given less memory")
    exp = get_exp(write_exp(tmp_path / "exp.py", devkit, tmp_path / "out"))
    exp.merge(["width", "1.0", "input_size", "640,640", "test_size", "640,640"])
    total = torch.cuda.mem_get_info(place)[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5e9 / total))
    try:
        with pytest.raises(ValueError, match="out of memory on cuda:0 with 4 images of 640×640"):
            yolox.train(exp, precision="fp32")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
