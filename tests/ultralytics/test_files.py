"""Files of Ultralytics: what is read, and what is refused with one line and nothing run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.ultralytics.helpers import SIDE, make_detector, raw, shapes
from yolox import ultralytics as adapter
from yolox.utils.checkpoint import CheckpointError, load_checkpoint
from yolox.utils.errors import UserError

STOCK = """
import sys
from pathlib import Path

import numpy as np
import torch
from ultralytics import YOLO

path, data, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
runs = str(Path("runs").resolve())
model = YOLO(path)
print(sum(p.numel() for p in model.model.parameters()))
print(model.val(data=data, imgsz=side, plots=False, project=runs).box.map)
image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
print(len(model.predict(image, imgsz=side, conf=0.001, save=False, project=runs)[0].boxes))
print(YOLO(path).export(format="onnx", imgsz=side, simplify=False))
assert not [name for name in sys.modules if name.split(".")[0] == "yolox"]
"""


class Evil:
    """Touches a file when it is unpickled the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        adapter.read_detector(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    return text


def test_a_saved_model_is_read_as_it_was(tmp_path: Path) -> None:
    model = make_detector()
    adapter.save_detector(model, tmp_path / "model.pt")
    read = adapter.read_detector(tmp_path / "model.pt")
    assert not read.training
    assert {p.dtype for p in read.parameters()} == {torch.float32}
    assert read.names == model.names
    assert read.args["imgsz"] == SIDE
    images = torch.rand(1, 3, SIDE, SIDE)
    for key, value in raw(model.half().float(), images).items():
        assert torch.equal(raw(read, images)[key], value)


def test_a_malicious_file_is_refused_and_nothing_in_it_runs(whole: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    content = torch.load(whole, weights_only=False)
    torch.save({**content, "date": Evil(marker)}, path)
    assert "posix.mkdir" in refusal(path) or "nt.mkdir" in refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # it would have


def test_reading_a_file_allows_the_process_nothing_more(whole: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    adapter.read_detector(whole)
    assert set(torch.serialization.get_safe_globals()) == before
    with torch.serialization.safe_globals([print]):
        adapter.read_detector(whole)
        assert print in torch.serialization.get_safe_globals()


def test_a_file_of_theirs_is_refused_as_ours_whatever_was_read_before(whole: Path) -> None:
    from ultralytics.nn.tasks import torch_safe_load

    torch_safe_load(str(whole), safe_only=True)  # as their own programs do
    assert torch.serialization.get_safe_globals()
    with pytest.raises(CheckpointError, match="is a model of Ultralytics"):
        load_checkpoint(whole)


def test_an_activation_that_is_code_is_refused_and_not_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    model = make_detector()
    model.yaml["activation"] = f"__import__('os').mkdir({str(marker)!r})"
    adapter.save_detector(model, tmp_path / "model.pt")
    assert "activation" in refusal(tmp_path / "model.pt")
    assert not marker.exists()
    model.yaml["activation"] = "nn.SiLU()"
    adapter.save_detector(model, tmp_path / "model.pt")
    adapter.read_detector(tmp_path / "model.pt")


def test_other_files_are_told_what_they_are(tmp_path: Path) -> None:
    from ultralytics.nn.tasks import SegmentationModel

    path = tmp_path / "model.pt"
    assert "no file" in refusal(path)
    assert "expected a .pt" in refusal(tmp_path / "model.onnx")
    (tmp_path / "folder.pt").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.pt")
    for content in (b"", b"not a checkpoint", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        assert "no checkpoint that can be read" in refusal(path)
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    assert "no model of Ultralytics" in refusal(path)
    torch.save(torch.nn.Conv2d(1, 1, 1), path)
    assert "no model of Ultralytics" in refusal(path)
    torch.save([1], path)
    assert str(path) in refusal(path)
    torch.save({"model": SegmentationModel("yolov8n-seg.yaml", nc=3, verbose=False)}, path)
    assert "SegmentationModel" in refusal(path)


def test_truncated_files_are_told(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    for part in (0.1, 0.5, 0.99):
        path = tmp_path / "short.pt"
        path.write_bytes(content[: int(part * len(content))])
        assert str(path) in refusal(path)


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    model = make_detector()
    model.model[0].conv.weight.data[0, 0, 0, 0] = torch.nan
    adapter.save_detector(model, tmp_path / "model.pt")
    assert "model.0.conv.weight" in refusal(tmp_path / "model.pt")


def test_a_model_that_another_tool_has_cut_is_refused(tmp_path: Path) -> None:
    model = make_detector()
    conv = model.model[22].cv2[0][0].conv
    conv.weight = nn.Parameter(conv.weight[:8])
    adapter.save_detector(model, tmp_path / "model.pt")
    assert "another tool" in refusal(tmp_path / "model.pt")
    assert "model.22.cv2.0.0.conv.weight" in refusal(tmp_path / "model.pt")


def test_a_pruned_file_is_an_ordinary_one_to_the_stock_program(
    whole: Path, pruned: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    run = subprocess.run(
        [sys.executable, "-c", STOCK, str(pruned), str(data), str(SIDE)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    params = sum(p.numel() for p in adapter.read_detector(pruned).parameters())
    assert str(params) in lines
    assert params < sum(p.numel() for p in adapter.read_detector(whole).parameters())
    assert Path(lines[-1]).suffix == ".onnx"


def test_the_plan_is_in_the_file(pruned: Path, whole: Path) -> None:
    from yolox.pruning import apply_plan
    from yolox.ultralytics.detector import Detector
    from yolox.ultralytics.files import plans_of

    small = adapter.read_detector(pruned)
    assert adapter.is_pruned(small)
    (plan,) = plans_of(small)
    detector = Detector(adapter.read_detector(whole))
    again = apply_plan(detector.model, detector.groups, plan)
    assert shapes(again) == shapes(small)
