"""Published weights by name: fetched once into the user's cache folder, whole and checked."""

from __future__ import annotations

import difflib
import os
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from loguru import logger

from yolox.utils.cache_folder import cache_folder, locked
from yolox.utils.checkpoint import CheckpointError, load_checkpoint
from yolox.utils.errors import UserError
from yolox.utils.files import is_full, is_refusal
from yolox.utils.progress import track

_RELEASE = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
_NAMES = ("nano", "tiny", "s", "m", "l", "x", "darknet")
WEIGHTS = {f"yolox_{name}": f"{_RELEASE}/yolox_{name}.pth" for name in _NAMES}
_ALIASES = {"yolov3": "yolox_darknet"}

_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20
_LOCAL_HOSTS = ("127.0.0.1", "localhost")


class _TransferError(Exception):
    """What came is not what was asked for; the message says how."""


def resolve_weights(name_or_path: str | Path, base_url: str | None = None) -> Path:
    """The file of a checkpoint given by its path, or by the name of published weights.

    A file that exists is taken; a name of `WEIGHTS` (hyphens do, and yolov3) stands for the file
    in the user's cache folder, which is downloaded if it is not there. A download that broke off
    goes on where it was.

    Args:
        name_or_path: a path, or a name.
        base_url: folder to download from instead of the official release's.

    Raises:
        CheckpointError: neither a file nor a known name; or what was downloaded is no checkpoint.
        UserError: the download failed; says where to put the file by hand.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    name = str(name_or_path).lower().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in WEIGHTS:
        raise CheckpointError(_unknown(path))
    url = WEIGHTS[name] if base_url is None else f"{base_url}/{name}.pth"
    target = cache_folder() / f"{name}.pth"
    if not target.is_file():
        _download(url, target)
    return target


def _unknown(path: Path) -> str:
    names = [*WEIGHTS, *_ALIASES]
    near = difflib.get_close_matches(path.stem.lower().replace("-", "_"), names, cutoff=0.85)
    hint = f" (meant {' or '.join(near)}?)" if near else ""
    return (
        f"no checkpoint at {path}: train one with `yolox.train`, give its path as "
        f"`checkpoint`, or the name of published weights: {', '.join(names)}{hint}"
    )


def _download(url: str, target: Path) -> None:
    """Fetch, check, and only then give the file its name."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock")) as alone:
            if target.is_file():  # another process has fetched it
                return
            # without locks, a part is this process's own and is not gone on with
            part = target.with_name(f"{target.name}{'' if alone else f'.{os.getpid()}'}.part")
            logger.info(f"downloading {url} to {target}")
            _fetch(url, part)
            _check(url, part)
            part.replace(target)
    except HTTPError as error:
        raise _failed(url, target, f"HTTP status {error.code}, {error.reason}") from error
    except (_TransferError, HTTPException) as error:
        raise _failed(url, target, str(error) or type(error).__name__) from error
    except OSError as error:
        if is_refusal(error) or error.filename:
            room = "make room, or " if is_full(error) else ""
            raise UserError(
                f"cannot write into {target.parent} ({error.strerror}): {room}set YOLOX_CACHE to "
                "another folder"
            ) from error
        # urllib's URLError wraps the reason of no connection
        raise _failed(url, target, str(getattr(error, "reason", None) or error)) from error


def _failed(url: str, target: Path, reason: str) -> UserError:
    return UserError(
        f"{url} could not be downloaded ({reason}): run the command again, which continues a "
        f"partial download, or fetch it on another machine and put it at {target}"
    )


def _check(url: str, part: Path) -> None:
    """Raises CheckpointError, having removed the file, if it is no checkpoint."""
    try:
        load_checkpoint(part)
    except CheckpointError as error:
        part.unlink()
        raise CheckpointError(
            f"what {url} sent is no checkpoint and was removed ({error}): is there a proxy or a "
            f"login page in between?"
        ) from error


def _fetch(url: str, part: Path) -> None:
    """Download into ``part``, after what is there. Raises _TransferError if it breaks off."""
    try:
        _receive(url, part)
    except HTTPError as error:
        if error.code != 416 or not part.is_file():
            raise
        # the part is complete, or longer than the file: then it is of something else
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if total != str(part.stat().st_size):
            part.unlink()
            _receive(url, part)


def _receive(url: str, part: Path) -> None:
    done = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "yolox-with-pruning", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    _require_safe(url)
    request = Request(url, headers=headers)  # noqa: S310
    with build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT) as response:
        if response.status == 206 and _range_start(response) != done:
            got = response.headers.get("Content-Range")
            raise _TransferError(f"asked for bytes from {done} on, got {got}")
        if response.status != 206:
            done = 0  # the server sends all of it
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            _copy(response, file, part.name, done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and part.stat().st_size != total:
        raise _TransferError(f"it broke off after {part.stat().st_size} of {total} bytes")


def _range_start(response: HTTPResponse) -> int | None:
    unit, _, rest = (response.headers.get("Content-Range") or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None


def _copy(response: HTTPResponse, file: IO[bytes], name: str, done: int, total: int | None) -> None:
    """Write the rest of the response, with a progress bar in MiB."""
    chunks = iter(lambda: response.read(_CHUNK), b"")
    count = None if total is None else -(-(total - done) // _CHUNK)
    for chunk in track(chunks, f"{name}, MiB", count):
        file.write(chunk)


def _require_safe(url: str) -> None:
    """Raises _TransferError for what others on the way could change."""
    parts = urlsplit(url)
    if parts.scheme != "https" and (parts.scheme, parts.hostname in _LOCAL_HOSTS) != ("http", True):
        raise _TransferError(f"only https is trusted, not {url}")


class _SafeRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
