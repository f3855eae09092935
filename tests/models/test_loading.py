"""A checkpoint gives the model that was saved, or one line that says what is wrong with it."""

from __future__ import annotations

import copy
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yolox.core import build_sgd, make_fabric
from yolox.core.state import capture_state, restore_state
from yolox.jobs.report.provenance import pruning_facts
from yolox.models import LoadedModel, ModelSpec, build_model, checkpoint_payload, load_model
from yolox.utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from yolox.utils.ema import ModelEMA

SPEC = ModelSpec(depth=0.33, width=0.0625, num_classes=2, class_names=("a", "b"))
RECIPE = {"fine_tuning": True, "input_size": [64, 64], "ema": True, "teacher_sha256": None}
HISTORY = [
    {
        "plan": {"config": {"target": "macs=0.5", "ch_sparsity": 0.4, "layer_sparsity": {}}},
        "compensation": {"absorb": True, "reconstruct": 0},
        "recipe": {"max_epoch": 3},
        "latency": {"setting": "torch", "parent_ms": 2.0, "result_ms": 1.0},
        "date": "2026-01-01",
    }
]


class Run:
    """A model in training, as the trainer has it between two epochs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.fabric = make_fabric(devices=1, precision="fp32")
        self.model = build_model(SPEC)
        self.optimizer = build_sgd(self.model, lr=0.1, momentum=0.9, weight_decay=0.0)
        self.ema = ModelEMA(self.model, 0.99)

    def state(self) -> dict[str, Any]:
        for weight in self.model.parameters():
            weight.grad = torch.ones_like(weight)
        self.optimizer.step()
        return capture_state(
            fabric=self.fabric, model=self.model, optimizer=self.optimizer, ema=self.ema,
            epoch=3, best=(0.5, 0.7),
        )  # fmt: skip

    def restore(self, content: dict[str, Any]) -> tuple[int, float, float]:
        return restore_state(
            content.get("train"), fabric=self.fabric, model=self.model, optimizer=self.optimizer,
            ema=self.ema, averaged=content["model"],
        )  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    return Run()


@pytest.fixture(scope="module")
def content(run: Run) -> dict[str, Any]:
    """All that a checkpoint of ours can hold; not to be changed."""
    payload = checkpoint_payload(build_model(SPEC), SPEC, HISTORY)
    return {**payload, "recipe": RECIPE, "train": run.state()}


@pytest.fixture
def file(tmp_path: Path, content: dict[str, Any]) -> Path:
    save_checkpoint(tmp_path / "whole.pth", content)
    return tmp_path / "whole.pth"


def use(loaded: LoadedModel, folder: Path) -> None:
    """What commands do with all that a file says."""
    pruning_facts(loaded.pruning)
    assert isinstance(loaded.recipe, dict)
    payload = checkpoint_payload(loaded.model, loaded.spec, loaded.pruning)
    save_checkpoint(folder / "again.pth", payload | {"recipe": loaded.recipe})


def outcome(path: Path) -> str:
    """Empty where the file serves; else the one line that says why it does not."""
    try:
        loaded = load_model(path)
        use(loaded, path.parent)
    except CheckpointError as error:
        return str(error)
    assert all(value.isfinite().all() for value in loaded.model.state_dict().values())
    return ""


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------ damaged bytes


def test_damage_is_seen(file: Path, content: dict[str, Any]) -> None:
    """A damaged file is refused, or gives every bit that was saved: gaps between parts are none."""
    whole = file.read_bytes()
    draw = random.Random(0)
    damaged_path = file.with_name("damaged.pth")
    refused = 0
    for number in range(200):
        damaged = bytearray(whole)
        place = draw.randrange(len(damaged))
        if number % 5 == 0:
            damaged = damaged[:place]
        elif number % 5 == 1:
            damaged[place : place + 64] = bytes(64)
        else:
            damaged[place] ^= 1 << draw.randrange(8)
        damaged_path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(damaged_path)
        except CheckpointError:
            refused += 1
            continue
        assert same(loaded["model"], content["model"])
        assert same(loaded["train"]["raw_model"], content["train"]["raw_model"])
        assert loaded["spec"] == content["spec"]
    assert refused > 150


def test_a_file_whose_weights_were_changed_is_named_damaged(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = [part for part in archive.infolist() if "/data/" in part.filename]
        part = max(parts, key=lambda part: part.file_size)
    whole = bytearray(file.read_bytes())
    whole[part.header_offset + part.file_size // 2] ^= 0x40
    file.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"whole.pth is damaged: '.*/data/\d+' in it"):
        load_model(file)


def test_files_without_checksums_load(file: Path, content: dict[str, Any]) -> None:
    for options in ({"_use_new_zipfile_serialization": False}, {}):
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(content, file, **options)
        finally:
            torch.serialization.set_crc32_options(True)
        assert same(load_model(file).content["model"], content["model"])


def test_an_archive_that_grows_is_not_unpacked(file: Path, content: dict[str, Any]) -> None:
    bomb = file.with_name("bomb.pth")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
        new.writestr("archive/data/9999", bytes(1 << 24))
    with pytest.raises(CheckpointError, match="it was compressed after it was written"):
        load_model(bomb)


# ------------------------------------------------------------------------------------- odd weights

WEIGHT, COUNT = "head.stems.0.conv.weight", "head.stems.0.bn.num_batches_tracked"
VARIANCE = "head.stems.0.bn.running_var"


def _with(weight: Tensor, value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    odd = weight.to(dtype)
    odd.view(-1)[3] = value
    return odd


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (WEIGHT, lambda w: _with(w, float("nan")), r"not finite.*stems.0.conv.weight \(1 of "),
        (WEIGHT, lambda w: _with(w, float("-inf")), r"not finite.*stems.0.conv.weight \(1 of "),
        (WEIGHT, lambda w: _with(w, 1e300, torch.float64), r"not finite.*conv.weight \(1 of "),
        (VARIANCE, lambda w: _with(w, -1.0), r"running_var \(negative variances\)"),
        (WEIGHT, lambda w: w.to(torch.int8), "expected floating-point numbers, got torch.int8"),
        (WEIGHT, lambda w: w.bool(), "expected floating-point numbers, got torch.bool"),
        (WEIGHT, lambda w: w.to(torch.complex64), "real numbers, got torch.complex64"),
        (WEIGHT, lambda w: w.to_sparse(), "got a sparse one"),
        (WEIGHT, lambda w: w.to("meta"), r"without values \(meta\)"),
        (WEIGHT, lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "a quantized one"),
        (WEIGHT, lambda w: 3, "conv.weight: expected a tensor, got 3"),
        (WEIGHT, lambda w: None, "conv.weight: expected a tensor, got None"),
        (WEIGHT, lambda w: torch.zeros(()), r"expected \(.*\), got \(\)"),
        (WEIGHT, lambda w: torch.zeros(1).expand(10**6, 10**6), "expected .*, got .1000000, 100"),
        (COUNT, lambda w: w.bool(), "num_batches_tracked: expected an integer, got torch.bool"),
    ],
)
def test_odd_weights_are_named(
    file: Path, content: dict[str, Any], name: str, change: Callable[..., Any], message: str
) -> None:
    state = {**content["model"], name: change(content["model"][name].clone())}
    torch.save({**content, "model": state}, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(file)
    assert name in str(caught.value)
    assert "whole.pth" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_serve(
    file: Path, content: dict[str, Any], dtype: torch.dtype
) -> None:
    """Their counters too: what casts all of a state dict casts these."""
    state = {name: value.to(dtype) for name, value in content["model"].items()}
    save_checkpoint(file, {**content, "model": state})
    loaded = load_model(file).model.state_dict()
    assert loaded[COUNT].dtype == torch.int64
    assert {value.dtype for name, value in loaded.items() if "num_b" not in name} == {torch.float32}


def test_parameters_and_large_finite_numbers_serve(file: Path, content: dict[str, Any]) -> None:
    state = {
        **content["model"],
        WEIGHT: nn.Parameter(torch.full_like(content["model"][WEIGHT], 3e38)),
    }
    torch.save({**content, "model": state}, file)
    loaded = load_model(file)
    assert all(value.is_leaf for value in loaded.model.state_dict(keep_vars=True).values())
    copy.deepcopy(loaded.model)


# ------------------------------------------------------------------------------------ odd fields


def _itself() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _laughs() -> list[Any]:
    value: list[Any] = [1]
    for _ in range(40):
        value = [value, value]
    return value


ODD: Sequence[Any] = (
    None,
    True,
    0,
    -1,
    3,
    10**9,
    10**400,
    0.0,
    -0.5,
    float("nan"),
    float("inf"),
    1e300,
    "",
    "x",
    "9" * 5000,
    [],
    [1],
    ["a", None],
    [[]],
    {},
    {"a": 1},
    {1: 2},
    {"": {"": []}},
    torch.zeros(()),
    torch.zeros(3),
    torch.zeros(2, 2).to_sparse(),
    torch.zeros(2, device="meta"),
    _itself(),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every field; of long lists and state dicts the first ones."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())[: 4 if len(value) > 20 else None]
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))[:2]
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _changed(content: Any, path: Sequence[Any], value: Any) -> Any:
    """A copy with another value in one place; `...` leaves it out."""
    copied = dict(content) if isinstance(content, dict) else list(content)
    if len(path) > 1:
        copied[path[0]] = _changed(content[path[0]], path[1:], value)
    elif value is ...:
        del copied[path[0]]
    else:
        copied[path[0]] = value
    return copied


def test_every_odd_field_serves_or_is_told(file: Path, content: dict[str, Any]) -> None:
    whole = {"format": "yolox-checkpoint", "version": 1, **content}
    del whole["train"]
    told = 0
    for place, value in _cases(whole, 80):
        torch.save(_changed(whole, place, value), file)
        message = outcome(file)
        assert "\n" not in message
        assert len(message) < 2000
        told += bool(message)
    assert told > 40


def test_every_odd_field_of_the_training_state_serves_or_is_told(
    content: dict[str, Any], run: Run
) -> None:
    told = 0
    for place, value in _cases(content["train"], 300):
        state = _changed(content["train"], place, value)
        try:
            run.restore({**content, "train": state})
            run.optimizer.step()
        except CheckpointError as error:
            told += "\n" not in str(error) and len(str(error)) < 2000
    assert told > 150


def _cases(content: dict[str, Any], number: int) -> list[tuple[tuple[Any, ...], Any]]:
    cases = [(place, value) for place in _places(content) for value in (*ODD, ...)]
    return random.Random(1).sample(cases, number)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("spec", "depth"), 1e9, "depth: expected a number above 0 to 20, got 1000000000.0"),
        (("spec", "depth"), torch.ones(2), "spec.depth: expected text, numbers.*got a Tensor"),
        (("spec", "num_classes"), True, "num_classes: expected an integer"),
        (("spec", "class_names"), [1, 2], "class_names.0.: expected a text, got 1"),
        (("spec", "input_size"), [64, 65], "input_size.1.: .* multiple of 32|expected an integer"),
        (("channels", "head.stems.0.conv"), [10**12, 1, 1], "expected an integer from 1 to 65536"),
        (("channels", "head.stems.0.conv"), [16, 16, 5], "divisible by groups"),
        (("pruning",), _laughs(), "expected at most 1000000 values"),
        (("recipe",), _itself(), "levels deep"),
        (("recipe",), {"lr": torch.ones(2)}, "recipe.lr: expected text, numbers.*Tensor"),
        (("train", "epoch"), 10**400, "epoch: expected an integer.*a number of 1329 bits"),
        (("train", "torch_rng"), torch.zeros(5, dtype=torch.uint8), "another precision or version"),
        (("train", "optimizer", "param_groups"), [], "another model or optimizer"),
        (("train", "optimizer", "state", 0, "momentum_buffer"), torch.ones(3), "has shape .3,., n"),
        (("train", "raw_model", WEIGHT), torch.zeros(1).expand(3, 3), "another model or optimizer"),
        (("train", "best"), [0.5], "best: expected a list of 2, got 1"),
        (("version",), "new", "version: expected an integer from 1 to 1, got 'new'"),
        (("model",), {"head.cls_preds.0.weight": torch.zeros(())}, "weights do not fit"),
    ],
)
def test_what_is_wrong_is_said(
    file: Path, content: dict[str, Any], run: Run, place: tuple[Any, ...], value: Any, message: str
) -> None:
    whole = {"format": "yolox-checkpoint", "version": 1, **content}
    torch.save(_changed(whole, place, value), file)
    with pytest.raises(CheckpointError, match=message):
        run.restore(load_model(file).content)


def test_an_official_file_with_odd_shapes_is_told(file: Path, content: dict[str, Any]) -> None:
    """Without a spec, everything is inferred from names and shapes."""
    draw = random.Random(2)
    names = list(content["model"])
    stem = "backbone.backbone.stem.conv.conv.weight"
    for name in ("head.cls_preds.0.weight", stem, *draw.sample(names, 5)):
        for value in (torch.zeros(()), torch.zeros(0, 3), torch.zeros(5000, 1, 1, 1), ...):
            torch.save({"model": _changed(content["model"], (name,), value)}, file)
            assert outcome(file)
    extra = {f"backbone.backbone.dark2.1.m.{9**n}.x": torch.zeros(1) for n in (1, 4, 9, 4000)}
    torch.save({"model": {**content["model"], **extra}}, file)
    assert outcome(file)


def test_keys_of_a_newer_program_are_let_be(file: Path, content: dict[str, Any]) -> None:
    newer = {"spec": {**content["spec"], "attention": "none"}, "quality": [1], "train": {"x": 1}}
    save_checkpoint(file, {**content, **newer})
    assert load_model(file).spec == SPEC
