"""The seal of an exported file: a digest of all of it, in itself, so that no changed byte passes.

A seal is the SHA-256 of the file's bytes with the seal's own digits read as zeros, under the key
`SEAL_KEY` of the metadata. Files that lie beside it have digests of their own among the sealed
bytes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from yolox.export.settings import SUFFIXES, ExportError, optional_packages
from yolox.utils.checkpoint import file_digest

SEAL_KEY = "content_sha256"
UNSEALED_DIGEST = "0" * 64
# Of each kind of file: the one that holds the digests, and those that they are of, by their keys.
_HOLDERS = {".onnx": ".onnx", ".xml": ".xml", ".param": ".json"}
_OTHERS = {
    ".onnx": {},
    ".xml": {"bin_sha256": ".bin"},
    ".param": {"param_sha256": ".param", "bin_sha256": ".bin"},
}
COMPANION_DIGESTS = {
    suffix: dict.fromkeys(keys, UNSEALED_DIGEST) for suffix, keys in _OTHERS.items()
}
_CHUNK = 2**20
_KEY_BYTES = 2**16  # bytes in which a key and its digest lie


def seal(path: str | Path) -> None:
    """Seal a file of ``yolox.export`` anew, after it was changed on purpose.

    It then opens again; that it still computes what the checkpoint does is not looked at.

    Args:
        path: ``.onnx``, ``.xml`` or ``.param``; what belongs to it lies beside it.

    Raises:
        ExportError: no such file, it has no metadata of ours, or it keeps weights in other files.
    """
    path = Path(path)
    if path.suffix not in _HOLDERS:
        raise ExportError(f"{path}: only {', '.join(_HOLDERS)} files can be sealed")
    require_parts(path)
    if path.suffix == ".onnx":
        _require_whole(path)
    holder = path.with_suffix(_HOLDERS[path.suffix])
    for key, suffix in _OTHERS[path.suffix].items():
        _write(holder, _place(holder, key, path), file_digest(path.with_suffix(suffix)))
    place = _place(holder, SEAL_KEY, path)
    _write(holder, place, _digest(holder, place))


def require_sealed(path: Path) -> None:
    """Raise `ExportError` unless a ``.onnx``, ``.xml`` or ``.param`` file is as it was sealed."""
    holder = path.with_suffix(_HOLDERS[path.suffix])
    place = _place(holder, SEAL_KEY, path)
    changed = [] if _read(holder, place) == _digest(holder, place) else [holder]
    for key, suffix in {} if changed else _OTHERS[path.suffix].items():
        file = path.with_suffix(suffix)
        if _read(holder, _place(holder, key, path)) != file_digest(file):
            changed.append(file)
    if changed:
        names = "" if changed == [path] else f": {' and '.join(file.name for file in changed)}"
        raise ExportError(
            f"{path}{names} is not as exported: damaged, of another export, or changed by another "
            "program. Copy it again or export the checkpoint again (`yolox.export_model` "
            "simplifies graphs itself); after a change on purpose: "
            f'python -c "from yolox.export import seal; seal({str(path)!r})"'
        )


def require_parts(path: Path) -> None:
    """Raise `ExportError` unless an exported file and all that belongs to it are there."""
    kinds = {suffixes[0]: suffixes for suffixes in SUFFIXES.values()}
    for suffix in kinds[path.suffix]:
        if not path.with_suffix(suffix).is_file():
            raise ExportError(
                f"no file {path.with_suffix(suffix)}: make one with `yolox.export_model`"
                + ("" if suffix == path.suffix else f", and keep it beside {path.name}")
            )


def _require_whole(path: Path) -> None:
    (onnx,) = optional_packages("onnx")
    graph = onnx.load(path, load_external_data=False).graph
    if any(tensor.external_data for tensor in graph.initializer):
        raise ExportError(
            f"{path} keeps weights in other files, of which a seal says nothing: save it as one "
            "(onnx.save(onnx.load(path), path))"
        )


def _place(holder: Path, key: str, path: Path) -> int:
    """Where the digits of a key begin: behind the key and what the format puts between."""
    # Metadata come last in every format, and class names may read like anything: from the end.
    pattern = re.compile(
        rb"\b" + key.encode() + rb"[^0-9A-Za-z](?:.{1,9}?)([0-9a-f]{64})", re.DOTALL
    )
    size = holder.stat().st_size
    with holder.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - _CHUNK)
            file.seek(start)
            found = list(pattern.finditer(file.read(min(_CHUNK + _KEY_BYTES, size - start))))
            if found:
                return start + found[-1].start(1)
            end = start
    name = "" if holder == path else f": {holder.name}"
    raise ExportError(
        f"{path}{name} ({size} bytes) holds no digest of its content ({key}): it is cut "
        "short, of an earlier version, or no file of `yolox.export_model`. Copy it again, or "
        "export the checkpoint again"
    )


def _read(holder: Path, place: int) -> str:
    with holder.open("rb") as file:
        file.seek(place)
        return file.read(len(UNSEALED_DIGEST)).decode("ascii")


def _write(holder: Path, place: int, digest: str) -> None:
    with holder.open("r+b") as file:
        file.seek(place)
        file.write(digest.encode())


def _digest(holder: Path, place: int) -> str:
    """SHA-256 of the file with zeros for the 64 digits at a place."""
    digest = hashlib.sha256()
    with holder.open("rb") as file:
        for start in range(0, place, _CHUNK):
            digest.update(file.read(min(_CHUNK, place - start)))
        file.seek(place + len(UNSEALED_DIGEST))
        digest.update(UNSEALED_DIGEST.encode())
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()
