"""TorchScript archives: what is in them is looked at before PyTorch is let near them.

A TorchScript file is a program. `torch.jit.load` and a run of it do whatever its code says, files
written included, so its code is read here as text first: straight lines that call functions of
`yolox.export.torchscript_ops` and one another, and nothing else. PyTorch is then given an archive
of those very bytes, so that there is no second way to read the file.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from yolox.export.seal import SEAL_KEY
from yolox.export.settings import ExportError
from yolox.export.torchscript_code import CodeCheck
from yolox.export.torchscript_pickle import pickle_problems

METADATA_FILE = "metadata.json"  # within the archive
_METADATA, _SEAL = f"extra/{METADATA_FILE}", f"extra/{SEAL_KEY}"
_EXTRA_TEXT_BYTES = 64 * 2**20  # that an archive's compressed text may take above twice its size
# What PyTorch reads of an archive, and what it writes beside that: neither it nor we need it.
_NEEDED_RECORD = re.compile(
    r"data\.pkl|constants\.pkl|version|byteorder|(?:data|constants)/\d+|code/__torch__/[\w/]+\.py"
)
_IDLE_RECORD = re.compile(
    r"code/__torch__/[\w/]+\.py\.debug_pkl|traced_inputs\.pkl|traced_inputs/\d+"
    r"|\.data/serialization_id|\.format_version|\.storage_alignment"
)

Records = Mapping[str, bytes]


def seal_archive(path: Path) -> None:
    """Add the digest of all records to an archive that `torch.jit.save` has just written."""
    records = _read(path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(f"{root}/{_SEAL}"), _digest(records))


def open_archive(path: Path) -> tuple[bytes, io.BytesIO]:
    """The metadata of an archive, and what `torch.jit.load` may read of it, both checked.

    Raises:
        ExportError: damaged, of another program, or code that an exported detector has no need of.
    """
    records = _read(path)
    if not {_METADATA, _SEAL} <= records.keys():
        raise ExportError(
            f"{path} does not say how it is to be run: it is no file of `yolox.export_model`, or "
            "one of an earlier version. TorchScript files are programs, so others are not run: "
            "export the checkpoint"
        )
    if records[_SEAL] != _digest(records).encode():
        raise ExportError(
            f"{path} is not as exported: damaged, or changed by another program. Copy it again, or "
            "export the checkpoint again"
        )
    return records[_METADATA], _checked(path, records, _METADATA, _SEAL)


def open_foreign_archive(path: Path, record: str) -> tuple[bytes, io.BytesIO]:
    """The same of another program's archive, which is not sealed.

    Args:
        path: of the file.
        record: where its metadata are, below the archive's root.

    Raises:
        ExportError: see `open_archive`.
    """
    records = _read(path)
    if record not in records:
        raise ExportError(f"{path} has no {record}, so nothing says how it is to be run")
    return records[record], _checked(path, records, record)


def _checked(path: Path, records: Records, *idle: str) -> io.BytesIO:
    """What `torch.jit.load` may read of an archive; `idle` records need no look."""
    problems = list(_problems(records, idle))
    if problems:
        raise ExportError(
            f"{path} was not run: TorchScript files are programs, and this one holds what an "
            f"exported detector has no need of: {'; '.join(dict.fromkeys(problems[:5]))}. Do not "
            "trust it; export the checkpoint again, or use another `format` for a network of your "
            "own"
        )
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w") as archive:
        for name, content in records.items():
            if _NEEDED_RECORD.fullmatch(name):
                archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    clean.seek(0)
    return clean


def _read(path: Path) -> Records:
    """Every record by its name below the archive's root. Their CRCs are checked on the way."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            root = infos[0].filename.partition("/")[0] + "/"
            names = [info.filename.removeprefix(root) for info in infos]
            if len(set(names)) < len(names):
                raise ValueError("a record comes twice")
            if not all(info.filename.startswith(root) for info in infos):
                raise ValueError("records in several folders")
            if sum(info.file_size for info in infos) > 2 * path.stat().st_size + _EXTRA_TEXT_BYTES:
                raise ValueError("it holds more than its size allows")
            return {name: archive.read(info) for name, info in zip(names, infos, strict=True)}
    except Exception as error:  # on damaged bytes zipfile raises whatever comes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{path} ({path.stat().st_size} bytes) is damaged or no TorchScript file ({reason}): "
            "copy it again, or export the checkpoint again"
        ) from None


def _digest(records: Records) -> str:
    """SHA-256 of the names, sizes and contents of all records but the seal."""
    digest = hashlib.sha256()
    for name in sorted(records.keys() - {_SEAL}):
        digest.update(f"{name}\0{len(records[name])}\0".encode())
        digest.update(records[name])
    return digest.hexdigest()


def _problems(records: Records, idle: Collection[str]) -> Iterable[str]:
    """What is in an archive that must not be, in words."""
    classes: set[str] = set()
    for name, content in records.items():
        if name.endswith(".py") and _NEEDED_RECORD.fullmatch(name):
            module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
            code = CodeCheck(module)
            code.check(content)
            classes |= code.classes
            yield from code.problems
        elif not (_NEEDED_RECORD.fullmatch(name) or _IDLE_RECORD.fullmatch(name) or name in idle):
            yield f"a record {name!r}"
    for name in ("data.pkl", "constants.pkl"):
        yield from pickle_problems(name, records, classes)
