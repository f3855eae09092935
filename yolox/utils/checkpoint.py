"""Checkpoint files: written atomically, read without unpickling code, refused with a reason."""

from __future__ import annotations

import collections
import hashlib
import pickle
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolox.utils.errors import UserError
from yolox.utils.files import replacing
from yolox.utils.schema import integer, record, require, shown

_MAX_REASON_LENGTH = 150  # letters
FORMAT = "yolox-checkpoint"
VERSION = 1
_ZIP_MAGIC = b"PK\x03\x04"  # what a zip archive begins with
_SETTING_ASIDE = threading.RLock()
_scalar: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]
# What NumPy's scalars are pickled by: under the names of NumPy 1 and 2, whichever is here. None of
# these can run what a file says.
_NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
]


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, unsafe, or does not fit the model."""


def save_checkpoint(path: str | Path, payload: Mapping[str, Any]) -> None:
    """Write tensors and plain values; a kill at any instant leaves the old or the new file, whole.

    Args:
        path: the file to write; its folder is made if need be.
        payload: tensors, str, int, float, bool, None, lists and dicts of them, nothing else.

    Raises:
        TypeError: a value that the safe loader would refuse, named by its place.
        CheckpointError: the place cannot be written to, or its disk is full.
    """
    with replacing(Path(path), CheckpointError, tensor_bytes(payload)) as temporary:
        write_checkpoint(temporary, payload)


def write_checkpoint(path: Path, payload: Mapping[str, Any]) -> None:
    """Write to a temporary file of `replacing`; see `save_checkpoint` for the rest."""
    _require_plain(dict(payload), "checkpoint")
    with path.open("wb") as file:
        torch.save({"format": FORMAT, "version": VERSION, **payload}, file)


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours or an official ``{"model": state_dict}`` file.

    The checksums that the file holds are compared first, which PyTorch does not do; files of its
    format before 1.6 hold none. Classes that the process has allowed PyTorch to unpickle are not
    allowed here. Numbers of NumPy, as official training writes its APs, become Python's.

    Raises:
        CheckpointError: missing, damaged, holding pickled code, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}: train one with `yolox.train`, or give its path as "
            "`checkpoint`"
        )
    _require_undamaged(path)
    try:
        with allowed_globals_aside(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd bytes, before the error that they lead to
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path) and _is_damaged(path):
            raise _damaged(path, error) from error
        if is_of_ultralytics(path):
            raise CheckpointError(
                f"{path} is a model of Ultralytics: prune it with "
                "`yolox.ultralytics.prune_detector`, train it with "
                "`yolox.ultralytics.PrunedTrainer`, and evaluate, run and export it with their own "
                "program (yolo val, yolo predict, yolo export)"
            ) from error
        raise CheckpointError(
            f"{path} holds pickled Python objects and was not read, since unpickling can run any "
            "code: where it was made and is trusted, save its weights as "
            'torch.save({"model": model.state_dict()}, "weights.pth") and load that'
        ) from error
    except Exception as error:  # the reader trips over damaged bytes in every way there is
        raise _damaged(path, error) from error
    _require_format(path, content)
    return {
        key: value.item() if isinstance(value, np.number) else value
        for key, value in content.items()
    }


@contextmanager
def allowed_globals_aside() -> Iterator[None]:
    """Have ``torch.load(weights_only=True)`` take tensors, plain values and numbers of NumPy alone.

    Libraries add classes by `torch.serialization.add_safe_globals` for the whole process, so that
    what one of them reads decides how strict all others are. At the end the list is as it was
    before, without what was added meanwhile. It is one for all threads.
    """
    with _SETTING_ASIDE:
        allowed = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(_NUMPY_NUMBERS)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(allowed)


def _require_format(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        kind = type(content).__name__
        keys = list(content)[:5] if isinstance(content, dict) else []
        found = f" with keys {sorted(map(_key, keys))}" if isinstance(content, dict) else ""
        raise CheckpointError(
            f'{path}: expected a dict with "model" holding a state dict, got a {kind}{found}'
        )
    form = content.get("format")
    if not isinstance(form, str) or form != FORMAT:
        return
    version = content.get("version")
    if type(version) is int and version > VERSION:
        raise CheckpointError(
            f"{path} has format version {shown(version)}, this program reads up to {VERSION}: "
            "update it"
        )
    require(content, record({"version": integer(1, VERSION)}), str(path), CheckpointError)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else shown(key)


def _require_undamaged(path: Path) -> None:
    """Compare every part of an archive with its checksum; files of older formats have none.

    Raises:
        CheckpointError: one of them differs, or the archive cannot be read.
    """
    try:
        first = _first_bytes(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    try:
        if first != _ZIP_MAGIC and not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            size = sum(part.file_size for part in parts)
            if size > path.stat().st_size:
                raise CheckpointError(
                    f"{path} holds {size} bytes in {path.stat().st_size}: it was compressed after "
                    "it was written, unpack it, or save its weights again with torch.save"
                )
            # torch.serialization.set_crc32_options(False) leaves them out.
            checked = any(part.CRC for part in parts)
            damaged = archive.testzip() if checked else None
    except UserError:
        raise
    except Exception as error:  # as many kinds as there are damages
        raise _damaged(path, error) from error
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: {damaged!r} in it is not what its checksum says. Copy, download "
            "or train it again"
        )


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal: the provenance mark of a checkpoint."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_damaged(path: Path) -> bool:
    """Whether a file that is no zip archive does not look like an old-style pickle either."""
    return _first_bytes(path)[:1] != b"\x80"


def is_of_ultralytics(path: Path) -> bool:
    """Whether a file is a pickle that names classes of Ultralytics. Nothing in it is run."""
    try:
        with allowed_globals_aside():
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no archive, or damaged in one of many ways
        return False
    return any(name.startswith("ultralytics.") for name in names)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_ZIP_MAGIC))


def _damaged(path: Path, error: Exception) -> CheckpointError:
    size = path.stat().st_size
    reason = (str(error).splitlines() or [""])[0]
    if isinstance(error, pickle.UnpicklingError):
        reason = "nothing that can be read safely"  # PyTorch's own text advises to read it unsafely
    elif not 10 < len(reason) <= _MAX_REASON_LENGTH:  # an odd byte, or a paragraph about formats
        reason = "nothing that can be read"
    return CheckpointError(
        f"{path} ({size} bytes) is truncated or no checkpoint ({reason}): copy, download or train "
        "it again"
    )


def tensor_bytes(value: Any) -> int:
    """What the tensors in nested values take."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _require_plain(value: Any, where: str) -> None:
    """Refuse what ``weights_only=True`` could not read back, before a long run finds out."""
    if type(value) in (dict, collections.OrderedDict):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"{where}: key {key!r} must be str or int")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple, torch.Size):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif not (value is None or isinstance(value, torch.Tensor)) and type(value) not in (
        str,
        int,
        float,
        bool,
    ):
        raise TypeError(f"{where}: {type(value).__name__} cannot go into a checkpoint")
