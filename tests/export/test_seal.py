"""Exported files damaged, changed, or made to do harm: refused before a runtime opens them."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export.helpers import images
from yolox.export import ExportError, open_exported, seal
from yolox.export.archive import METADATA_FILE, open_archive, seal_archive
from yolox.export.settings import FORMATS, PACKAGES, SUFFIXES
from yolox.export.torchscript_ops import TENSOR_FUNCTIONS

for package in {name for names in PACKAGES.values() for name in names}:
    pytest.importorskip(package, reason="needs the export extra", exc_type=ImportError)
onnx: Any = pytest.importorskip("onnx")

Files = Callable[..., Path]
FLIPS = 24  # bytes of each file that are changed, beside its ends


def problem(file: Path) -> str:
    with pytest.raises(ExportError) as raised:
        open_exported(file)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def named(file: Path, part: Path) -> str:
    """How an error names a part of an exported file."""
    return str(file) if part == file else f"{file}: {part.name}"


def copied(file: Path, folder: Path) -> Path:
    for part in file.parent.glob(file.stem + ".*"):
        shutil.copy(part, folder)
    return folder / file.name


def is_idle(file: Path, expected: torch.Tensor) -> bool:
    """Whether a byte of a zip archive was changed that means nothing."""
    try:
        return torch.equal(open_exported(file)(images(1)), expected)
    except ExportError:
        return False


@pytest.mark.parametrize("kind", FORMATS)
def test_no_changed_byte_passes(kind: str, exported: Files, tmp_path: Path) -> None:
    file = copied(exported(kind), tmp_path)
    expected = open_exported(file)(images(1))
    rng = random.Random(kind)
    for suffix in SUFFIXES[kind]:
        part = file.with_suffix(suffix)
        whole = part.read_bytes()
        places = [0, len(whole) // 2, len(whole) - 1, *rng.choices(range(len(whole)), k=FLIPS)]
        for place in places:
            content = bytearray(whole)
            content[place] ^= 1 << rng.randrange(8)
            part.write_bytes(content)
            if kind == "torchscript" and is_idle(file, expected):
                continue
            assert named(file, part) in problem(file)
        for length in (0, 1, len(whole) // 3, len(whole) - 1):
            part.write_bytes(whole[:length])
            assert named(file, part) in problem(file)
        part.write_bytes(whole)
    torch.testing.assert_close(open_exported(file)(images(1)), expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_by_another_name_is_the_same(kind: str, exported: Files, tmp_path: Path) -> None:
    for suffix in SUFFIXES[kind]:
        shutil.copy(exported(kind).with_suffix(suffix), tmp_path / f"other{suffix}")
    model = open_exported(tmp_path / f"other{SUFFIXES[kind][0]}")
    assert model.info == open_exported(exported(kind)).info


def test_a_file_changed_on_purpose_is_sealed_anew(exported: Files, tmp_path: Path) -> None:
    for kind in ("onnx", "openvino", "ncnn"):
        file = copied(exported(kind), tmp_path)
        holder = file.with_suffix({"ncnn": ".json"}.get(kind, file.suffix))
        content = holder.read_bytes()
        assert content.count(b"Hund") == 1
        holder.write_bytes(content.replace(b"Hund", b"Hand"))
        said = problem(file)
        assert f"{named(file, holder)} is not as exported" in said
        assert f"seal({str(file)!r})" in said
        seal(file)
        assert open_exported(file).info.class_names == ("cat", "Hand", "猫")


def test_weights_in_another_file_are_not_sealed(exported: Files, tmp_path: Path) -> None:
    proto = onnx.load(exported("onnx"))
    file = tmp_path / "model.onnx"
    onnx.save(proto, file, save_as_external_data=True, location="weights", size_threshold=0)
    assert "is not as exported" in problem(file)
    with pytest.raises(ExportError, match="keeps weights in other files"):
        seal(file)
    onnx.save(onnx.load(file), file)
    seal(file)
    assert open_exported(file).info == open_exported(exported("onnx")).info


def test_what_cannot_be_sealed(exported: Files, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"only \.onnx, \.xml, \.param files can be sealed"):
        seal(exported("torchscript"))
    with pytest.raises(ExportError, match="no file"):
        seal(tmp_path / "none.onnx")
    stranger = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.save(stranger, tmp_path / "empty.onnx")
    with pytest.raises(ExportError, match=r"or no file of `yolox\.export_model`"):
        seal(tmp_path / "empty.onnx")


# ---------------------------------------------------------------------------------- TorchScript


class Evil(torch.nn.Module):
    """Overwrites a file as it runs."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.aten.save(x, self.place)
        return x


class EvilAtLoad(torch.nn.Module):
    """Overwrites a file as it is loaded."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    @torch.jit.export
    def __getstate__(self) -> str:
        return self.place

    @torch.jit.export
    def __setstate__(self, place: str) -> None:
        self.place = place
        torch.ops.aten.save(torch.ones(1), place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def records_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if "content_sha256" not in name]
        return {name.partition("/")[2]: archive.read(name) for name in names}


def rebuilt(records: Mapping[str, bytes], file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    seal_archive(file)
    return file


@pytest.mark.parametrize("kind", [Evil, EvilAtLoad])
def test_a_program_that_writes_a_file_is_not_run(
    kind: type[torch.nn.Module], exported: Files, tmp_path: Path
) -> None:
    victim, file = tmp_path / "precious.txt", tmp_path / "evil.torchscript"
    module = torch.jit.script(kind(str(victim)))
    metadata = records_of(exported("torchscript"))[f"extra/{METADATA_FILE}"]
    torch.jit.save(module, file, _extra_files={METADATA_FILE: metadata.decode()})
    victim.write_text("precious")
    assert "does not say how it is to be run" in problem(file)
    seal_archive(file)
    assert "Do not trust it" in problem(file)
    assert victim.read_text() == "precious"
    with suppress(RuntimeError):
        torch.jit.load(file)(torch.zeros(1))  # what would have happened
    assert victim.read_bytes()[:8] != b"precious"


EVIL_LINES = (
    'torch.save(x, "f")',
    'ops.aten.save(x, "f")',
    'torch.from_file("f", True, 4)',
    'x.save("f")',
    '(x).save("f")',
    'y = torch.save',
    'getattr(torch, "save")(x, "f")',
    'torch = x',
    'ops = self',
    'annotate = torch.cat',
    'y = ops.aten',
    'y = torch',
    'print(x)',
    'y = ops.prim.Print(x)',
    'y = ops.evil.run(x)',
    'y = torch.device("cpu", torch.save)',
    'y = torch.cat([x, torch.save(x, "f")], 0)',
    'y = (torch.save(x, "f")).forward()',
    'y = self.model.save("f")',
    'y = __torch__.torch.classes.evil.Evil()',
    'y = annotate(__torch__.torch.classes.evil.Evil, x)',
    'while True: y = x',
    'for y in x: z = y',
    'if x: y = x',
    'y = [z for z in x]',
    'y = lambda: x',
    'assert x',
    'raise x',
    'import os',
    'y = x[0]',
    'y = eval("1")',
    'y = "../../f"',
    'y = torch.add(x, "/etc/passwd")',
    'y: int = torch.save(x, "f")',
    'y = torch.add(x, x) # \\x00',
    'y = torch.add(x, "\\x41")',
    "y = 'a'",
    'y = fork(x)',
    'y = unchecked_cast(Tensor, x)',
    'def inner(): return x',
)  # fmt: skip


def test_code_beyond_a_detector_is_refused(exported: Files, tmp_path: Path) -> None:
    records = records_of(exported("torchscript"))
    assert open_exported(rebuilt(records, tmp_path / "same.torchscript"))
    name = next(name for name, content in records.items() if b"class Deployed(" in content)
    text = records[name].decode()
    head = "    model = self.model\n"
    assert head in text
    for line in EVIL_LINES:
        changed = text.replace(head, f"    {line}\n{head}", 1)
        file = rebuilt(records | {name: changed.encode()}, tmp_path / "evil.torchscript")
        assert "was not run" in problem(file), line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"code/__torch__/more.py": b"class A(Module):\n  def __setstate__(self, x: int):\n"
          b"    return x\n"}, "a method __setstate__"),
        ({"code/__torch__/more.py": b"class A(Interface):\n  a : int\n"}, "class A(Interface)"),
        ({"code/__torch__/more.py": b"def forward(x):\n  return x\n"}, "def forward"),
        ({"code/__torch__/more.py": b"class A(Module):\n  a : int = 3\n"}, "a: int = 3"),
        ({"code/__torch__/more.py": b"class A(Module):\n  a : str\n"}, "the type str"),
        ({"code/__torch__/more.py": b"class A(Module):\n  a : __torch__.torch.classes.A\n"},
         "the type __torch__.torch.classes.A"),
        ({"code/__torch__/more.py": b"x" * 3_000}, "in __torch__.more"),
        ({"code/__torch__/more.py": b"(" * 3_000}, "code that is none"),
        ({"code/__torch__/more.py": b"\xff"}, "code that is none"),
        ({"code/evil/more.py": b""}, "a record 'code/evil/more.py'"),
        ({"bytecode.pkl": b""}, "a record 'bytecode.pkl'"),
        ({"constants.pkl": b"cos\nsystem\n."}, "the name os system in constants.pkl"),
        ({"constants.pkl": b"\x80\x02c__torch__.torch.classes.x\nY\n)\x81."}, "the name __torch__"),
        ({"constants.pkl": b"\x80\x04\x8c\x02os\x8c\x06system\x93."}, "STACK_GLOBAL"),
        ({"constants.pkl": b"(S'rm'\nios\nsystem\n."}, "INST in constants.pkl"),
        ({"constants.pkl": b"\x80\x02("}, "no pickle in constants.pkl"),
        ({"data.pkl": b""}, "no pickle in data.pkl"),
    ],
)  # fmt: skip
def test_records_beyond_a_detector_are_refused(
    change: dict[str, bytes], words: str, exported: Files, tmp_path: Path
) -> None:
    records = records_of(exported("torchscript"))
    said = problem(rebuilt(records | change, tmp_path / "evil.torchscript"))
    assert words in said
    assert len(said) < 1500


def test_a_tensor_of_more_numbers_than_bytes_is_refused(exported: Files, tmp_path: Path) -> None:
    """PyTorch reads on behind them, in memory that is another's."""
    records = records_of(exported("torchscript"))
    for size in (0, len(records["data/0"]) - 1):
        change = {"data/0": records["data/0"][:size]}
        said = problem(rebuilt(records | change, tmp_path / "short.torchscript"))
        assert f"in {size} bytes" in said
    content = records["data.pkl"].replace(b"q\x00", b"q\x07", 1)
    said = problem(rebuilt(records | {"data.pkl": content}, tmp_path / "odd.torchscript"))
    assert "a memo out of order in data.pkl" in said
    content = records["data.pkl"].replace(b"X\x03\x00\x00\x00cpu", b"X\x03\x00\x00\x00foo", 1)
    said = problem(rebuilt(records | {"data.pkl": content}, tmp_path / "odd.torchscript"))
    assert "a tensor of another kind" in said


def test_archives_that_can_be_read_in_two_ways(exported: Files, tmp_path: Path) -> None:
    records, file = records_of(exported("torchscript")), tmp_path / "two.torchscript"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", records["data.pkl"])
    assert "a record comes twice" in problem(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("b/data.pkl", b"")
    assert "records in several folders" in problem(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**27))
    assert "holds more than its size allows" in problem(file)


def test_metadata_are_a_mapping(exported: Files, tmp_path: Path) -> None:
    records = records_of(exported("torchscript"))
    for content in (b"[1]", b"{", b"\xff", b"[" * 5000, json.dumps({"format": 1}).encode()):
        change = {f"extra/{METADATA_FILE}": content}
        said = problem(rebuilt(records | change, tmp_path / "odd.torchscript"))
        assert "odd.torchscript" in said


def test_every_function_of_the_list_is_one_of_tensors() -> None:
    """No function of the list takes a path: what takes text works on nothing but text."""
    words = {"approximate", "rounding_mode", "indexing", "mode", "padding"}
    for name in TENSOR_FUNCTIONS:
        schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        assert schemas, name
        for schema in schemas:
            kinds = {argument.name: str(argument.type) for argument in schema.arguments}
            texts = {key for key, kind in kinds.items() if "str" in kind.lower()} - words
            made = " ".join(str(value.type) for value in schema.returns)
            assert not texts or "Tensor" not in f"{made} {kinds}", (name, str(schema))


def test_a_clean_archive_holds_what_was_checked(exported: Files) -> None:
    _, clean = open_archive(exported("torchscript"))
    with zipfile.ZipFile(clean) as archive:
        names = archive.namelist()
        assert all(name.startswith("archive/") for name in names)
        assert not any("debug_pkl" in name or "traced_inputs" in name for name in names)
