"""Checkpoint files: whole or not there, read without running code, refused with a reason."""

from __future__ import annotations

import collections
import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers import shared
from yolox.utils.checkpoint import (
    FORMAT,
    VERSION,
    CheckpointError,
    file_digest,
    load_checkpoint,
    save_checkpoint,
)

PAYLOAD: dict[str, Any] = {
    "model": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)},
    "spec": {"name": "s", "depth": 0.33, "flag": True, "none": None, "sizes": [1, 2, [3]]},
    "train": {"state": {0: {"step": 5}, 1: {"step": 6}}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with `PAYLOAD`, alone in its folder."""
    save_checkpoint(tmp_path / "run" / "last.pth", PAYLOAD)
    return tmp_path / "run" / "last.pth"


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_what_was_saved_is_loaded(path: Path) -> None:
    content = load_checkpoint(path)
    assert content["format"] == FORMAT
    assert content["version"] == VERSION
    assert content["spec"] == PAYLOAD["spec"]
    assert content["train"] == PAYLOAD["train"]
    for name, value in PAYLOAD["model"].items():
        assert torch.equal(content["model"][name], value)
        assert content["model"][name].dtype == value.dtype
    assert files(path) == ["last.pth"]


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=4
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_plain_value_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: list[tuple[torch.dtype, list[int]]],
    value: Any,
) -> None:
    path = tmp_path_factory.mktemp("plain") / "any.pth"
    model = {str(i): (torch.randn(shape) * 9).to(dtype) for i, (dtype, shape) in enumerate(tensors)}
    save_checkpoint(path, {"model": model, "value": value})
    content = load_checkpoint(path)
    assert content["value"] == value
    for name, tensor in model.items():
        assert content["model"][name].dtype == tensor.dtype
        assert torch.equal(content["model"][name], tensor)


def test_optimizer_and_module_states_are_plain(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    model(torch.rand(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    payload = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(tmp_path / "a.pth", payload)
    optimizer.load_state_dict(load_checkpoint(tmp_path / "a.pth")["optimizer"])
    model.load_state_dict(load_checkpoint(tmp_path / "a.pth")["model"])


class Pair(NamedTuple):
    """Looks like a tuple, is pickled by its class's name."""

    a: int
    b: int


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5),
        np.int64(3),
        np.zeros(2),
        {1, 2},
        Path("x"),
        b"bytes",
        nn.ReLU(),
        torch.float32,
        Pair(1, 2),
        collections.defaultdict(int, a=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_could_not_be_read_back_is_named_before_writing(
    path: Path, value: Any
) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"\['train'\]\['best'\]\[1\]"):
        save_checkpoint(path, {**PAYLOAD, "train": {"best": [0, value]}})
    assert path.read_bytes() == before
    assert files(path) == ["last.pth"]


def test_a_key_that_could_not_be_read_back_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"\['train'\]: key \(1, 2\)"):
        save_checkpoint(tmp_path / "a.pth", {"model": {}, "train": {(1, 2): 3}})


def test_a_failure_while_writing_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def half(_content: object, file: Any) -> None:
        file.write(before[: len(before) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CheckpointError, match=r"No space left.* the earlier last\.pth is whole"):
        save_checkpoint(path, {"model": {}})
    assert path.read_bytes() == before
    assert files(path) == ["last.pth"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_an_interrupt_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: type[BaseException]
) -> None:
    before = path.read_bytes()

    def stop(*_args: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync") if stage == "fsync" else (Path, "replace")), stop)
    with pytest.raises(error):
        save_checkpoint(path, {"model": {}})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert files(path) == ["last.pth"]


def test_bytes_are_on_disk_before_the_name_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (calls.append("replace"), replace(self, to))[1]
    )
    save_checkpoint(path, {"model": {}})
    assert calls[:2] == ["fsync", "replace"]
    assert load_checkpoint(path)["model"] == {}


def test_the_file_is_readable_as_any_new_file(path: Path) -> None:
    plain = path.parent / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


# --- files that cannot be read


@pytest.mark.parametrize("name", ["nowhere.pth", "."])
def test_a_missing_file_says_how_to_get_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*train one"):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("kept", [0, 1, 3, 100, 0.25, 0.5, 0.9, -1])
def test_a_truncated_file_is_called_so(path: Path, kept: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(CheckpointError, match="truncated or no checkpoint") as caught:
        load_checkpoint(path)
    assert f"({path.stat().st_size} bytes)" in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 2, 20, 0.25, 0.5, 0.9, -1])
def test_a_truncated_file_of_an_old_torch_is_not_blamed_on_its_content(
    path: Path, kept: float
) -> None:
    torch.save({"model": PAYLOAD["model"]}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(load_checkpoint(path)["model"]["weight"], PAYLOAD["model"]["weight"])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\x00" * 500, b"PK\x03\x04 no zip"])
def test_a_file_of_something_else_is_no_checkpoint(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or no checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_is_a_checkpoint_error_if_it_is_one_at_all(path: Path, legacy: bool) -> None:
    """Whatever the reader trips over, only a `CheckpointError` comes out."""
    torch.save(PAYLOAD, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 4, 30])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        try:
            load_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 100


class Bomb:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _touch, (str(self.target),)


def _touch(target: str) -> None:
    Path(target).touch()


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare pickle"])
def test_code_in_a_file_is_refused_and_does_not_run(path: Path, kind: str) -> None:
    target = path.parent / "it-ran"
    content = {"model": {"weight": torch.zeros(2)}, "extra": Bomb(target)}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps({"model": Bomb(target)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match=r"holds pickled Python objects.*torch\.save"):
        load_checkpoint(path)
    assert not target.exists()
    # The trap is a real one.
    torch.load(path, weights_only=False) if kind != "bare pickle" else pickle.loads(
        path.read_bytes()
    )
    assert target.exists()


def test_a_pickled_module_is_refused(path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 1)), path)
    with pytest.raises(CheckpointError, match="holds pickled Python objects"):
        load_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_the_process_allows_to_unpickle_is_refused(path: Path, legacy: bool) -> None:
    """Other libraries allow classes for the whole process: here they are as strange as before."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    torch.save({"model": model}, path, _use_new_zipfile_serialization=not legacy)
    allowed = [nn.Sequential, nn.Conv2d, set, (getattr, "builtins.getattr")]
    with torch.serialization.safe_globals(allowed):
        before = torch.serialization.get_safe_globals()
        if not legacy:
            assert isinstance(torch.load(path, weights_only=True)["model"], nn.Sequential)
        with pytest.raises(CheckpointError, match="holds pickled Python objects"):
            load_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize("numpy_module", ["numpy.core", "numpy._core"])
def test_the_numbers_of_an_official_checkpoint_are_read(path: Path, numpy_module: str) -> None:
    """Official training writes its APs as NumPy's scalars, under NumPy 1 or 2."""
    weight = torch.rand(2)
    numbers = {"best_ap": np.float64(0.3), "curr_ap": np.float32(0.25), "start_epoch": np.int64(4)}
    content = {"model": {"weight": weight}, **numbers}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    here = np.float64(0).__reduce__()[0].__module__  # type: ignore[index,union-attr]
    names = (f"c{module}.multiarray\nscalar\n".encode() for module in (here[:-11], numpy_module))
    path.write_bytes(path.read_bytes().replace(*names))
    read = load_checkpoint(path)
    assert torch.equal(read.pop("model")["weight"], weight)
    assert read == {"best_ap": 0.3, "curr_ap": 0.25, "start_epoch": 4}
    assert [type(value) for value in read.values()] == [float, float, int]
    assert np.dtype not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("odd", [np.zeros(2), np.str_("a"), np.array(None, object)])
def test_of_numpy_only_numbers_are_read(path: Path, odd: Any) -> None:
    torch.save({"model": {}, "best_ap": odd}, path)
    with pytest.raises(CheckpointError, match="holds pickled Python objects"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (torch.zeros(3), "got a Tensor"),
        ([1, 2], "got a list"),
        ({"state_dict": {}, "epoch": 3}, r"got a dict with keys \['epoch', 'state_dict'\]"),
        ({"model": torch.zeros(3)}, r"got a dict with keys \['model'\]"),
    ],
)
def test_another_format_is_told_by_what_it_holds(path: Path, content: Any, got: str) -> None:
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=got):
        load_checkpoint(path)


def test_a_newer_version_asks_for_an_update(path: Path) -> None:
    torch.save({"format": FORMAT, "version": VERSION + 1, "model": {}}, path)
    with pytest.raises(CheckpointError, match=f"version {VERSION + 1}.*up to {VERSION}: update"):
        load_checkpoint(path)


def test_official_files_load(tmp_path: Path) -> None:
    torch.save({"start_epoch": 300, "model": {"a": torch.ones(1)}}, tmp_path / "official.pth")
    assert load_checkpoint(tmp_path / "official.pth")["start_epoch"] == 300
    content = load_checkpoint(shared("weights/yolox_nano_coco.pth"))
    assert "head.cls_preds.0.weight" in content["model"]


def test_the_digest_is_the_files_sha256(path: Path) -> None:
    path.write_bytes(b"x" * (3 << 20))
    assert file_digest(path) == hashlib.sha256(b"x" * (3 << 20)).hexdigest()
