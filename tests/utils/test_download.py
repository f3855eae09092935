"""Weights by name, from a server on this machine that breaks in the ways that servers break."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from loguru import logger

from yolox.utils.checkpoint import CheckpointError, load_checkpoint
from yolox.utils.download import WEIGHTS, resolve_weights
from yolox.utils.errors import UserError


def weights() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.arange(300_000.0)}}, buffer)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves one file under any name.

    Attributes:
        content: what it serves.
        ranges: whether it knows of ranges.
        wrong_start: answer a range with one that starts a byte later.
        status: of an error to answer with, 0 for none.
        breaks_after: bytes after which it hangs up, once.
        location: where it redirects to.
        hold: set while answers may begin.
        seen: the path and range of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = weights()
        self.ranges = True
        self.wrong_start = False
        self.status = 0
        self.breaks_after: int | None = None
        self.location: str | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.seen: list[tuple[str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.seen.append((self.path, wanted))
        assert server.hold.wait(60)
        if server.status or server.location:
            self.send_response(server.status or 302)
            if server.location:
                self.send_header("Location", server.location)
            self.end_headers()
            return
        body, size = server.content, len(server.content)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            first = start + server.wrong_start
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        end, server.breaks_after = server.breaks_after, None
        self.wfile.write(body[start:end])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_the_names() -> None:
    assert sorted(WEIGHTS) == [
        f"yolox_{n}" for n in ("darknet", "l", "m", "nano", "s", "tiny", "x")
    ]
    release = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"
    assert WEIGHTS["yolox_darknet"] == f"{release}/yolox_darknet.pth"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("yolox_nano", "yolox_nano.pth"),
        ("yolox-nano", "yolox_nano.pth"),
        ("YOLOX-S", "yolox_s.pth"),
        ("yolov3", "yolox_darknet.pth"),
        (Path("yolox-darknet"), "yolox_darknet.pth"),
    ],
)
def test_a_name_is_downloaded_once(server: Server, cache: Path, name: str, file: str) -> None:
    path = resolve_weights(name, server.url)
    assert path == cache / file
    assert path.read_bytes() == server.content
    assert load_checkpoint(path)["model"]["w"].sum() > 0
    assert resolve_weights(name, server.url) == path
    assert server.seen == [(f"/weights/{file}", None)]
    assert files(cache) == [file]


def test_a_file_wins_over_a_name(server: Server, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "yolox_s").write_bytes(b"mine")
    assert resolve_weights("yolox_s", server.url) == Path("yolox_s")
    assert server.seen == []


@pytest.mark.parametrize("variable", ["YOLOX_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("YOLOX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = {
        "YOLOX_CACHE": tmp_path,
        "XDG_CACHE_HOME": tmp_path / "yolox",
        "HOME": tmp_path / ".cache" / "yolox",
    }[variable]
    monkeypatch.setenv(variable, str(tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "yolox_m.pth").write_bytes(b"there")
    assert resolve_weights("yolox_m") == folder / "yolox_m.pth"


def test_a_broken_download_goes_on_where_it_was(server: Server, cache: Path) -> None:
    size = len(server.content)
    server.breaks_after = 700_000
    with pytest.raises(UserError) as error:
        resolve_weights("yolox_s", server.url)
    assert f"it broke off after 700000 of {size} bytes" in str(error.value)
    assert f"{server.url}/yolox_s.pth" in str(error.value)
    assert f"put it at {cache / 'yolox_s.pth'}" in str(error.value)
    assert files(cache) == ["yolox_s.pth.part"]
    assert resolve_weights("yolox_s", server.url).read_bytes() == server.content
    assert [wanted for _, wanted in server.seen] == [None, "bytes=700000-"]
    assert files(cache) == ["yolox_s.pth"]


def partial(server: Server, cache: Path, content: bytes) -> bytes:
    """Resolve with a part already there; what the file is then."""
    cache.mkdir()
    (cache / "yolox_s.pth.part").write_bytes(content)
    return resolve_weights("yolox_s", server.url).read_bytes()


def test_a_server_without_ranges_sends_it_all_again(server: Server, cache: Path) -> None:
    server.ranges = False
    assert partial(server, cache, server.content[:1000]) == server.content
    assert [wanted for _, wanted in server.seen] == ["bytes=1000-"]


def test_a_part_that_is_whole_is_taken(server: Server, cache: Path) -> None:
    assert partial(server, cache, server.content) == server.content
    assert [wanted for _, wanted in server.seen] == [f"bytes={len(server.content)}-"]


def test_a_part_that_is_too_long_is_thrown_away(server: Server, cache: Path) -> None:
    assert partial(server, cache, server.content + b"more") == server.content
    assert [wanted for _, wanted in server.seen] == [f"bytes={len(server.content) + 4}-", None]


def test_another_range_than_asked_for_is_not_appended(server: Server, cache: Path) -> None:
    server.wrong_start = True
    with pytest.raises(UserError, match="asked for bytes from 1000 on, got bytes 1001-"):
        partial(server, cache, server.content[:1000])
    assert (cache / "yolox_s.pth.part").stat().st_size == 1000


def test_what_is_no_checkpoint_is_removed(server: Server, cache: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(CheckpointError, match="sent is no checkpoint and was removed") as error:
        resolve_weights("yolox_s", server.url)
    assert f"{server.url}/yolox_s.pth" in str(error.value)
    assert files(cache) == []


@pytest.mark.parametrize("status", [404, 500])
def test_an_http_error(server: Server, cache: Path, status: int) -> None:
    server.status = status
    with pytest.raises(UserError, match=f"HTTP status {status}") as error:
        resolve_weights("yolox_s", server.url)
    assert f"put it at {cache / 'yolox_s.pth'}" in str(error.value)
    assert files(cache) == []


def test_no_connection(cache: Path) -> None:
    with Server() as gone:
        url = gone.url
    with pytest.raises(UserError, match=r"could not be downloaded .*refused") as error:
        resolve_weights("yolox_s", url)
    assert f"{url}/yolox_s.pth" in str(error.value)
    assert f"put it at {cache / 'yolox_s.pth'}" in str(error.value)


@pytest.mark.parametrize("base", ["http://example.invalid/w", "ftp://127.0.0.1/w", "file:///w"])
def test_only_https_is_trusted(cache: Path, base: str) -> None:
    with pytest.raises(UserError, match=f"only https is trusted, not {base}/yolox_s.pth"):
        resolve_weights("yolox_s", base)


def test_a_redirect_to_what_is_not_safe_is_not_followed(server: Server, cache: Path) -> None:
    server.location = "http://example.invalid/file"
    with pytest.raises(UserError, match=r"only https is trusted, not http://example\.invalid/file"):
        resolve_weights("yolox_s", server.url)


def test_a_cache_that_cannot_be_written(cache: Path, server: Server) -> None:
    cache.touch()
    with pytest.raises(UserError, match=r"cannot write into .*YOLOX_CACHE") as error:
        resolve_weights("yolox_s", server.url)
    assert str(cache) in str(error.value)


def test_two_at_once_download_once(server: Server, cache: Path) -> None:
    server.hold.clear()
    waiting = threading.Event()
    handle = logger.add(lambda text: "waiting" in text and waiting.set(), level="INFO")
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve_weights("yolox_s", server.url)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert waiting.wait(60)
    server.hold.set()
    for thread in threads:
        thread.join()
    logger.remove(handle)
    assert found == [cache / "yolox_s.pth"] * 2
    assert len(server.seen) == 1
    assert files(cache) == ["yolox_s.pth"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("yolox_nan", "(meant yolox_nano"), ("yolox_tiny.pth", "(meant yolox_tiny"), ("best.pth", "")],
)
def test_an_unknown_name_gets_the_nearest(cache: Path, name: str, meant: str) -> None:
    with pytest.raises(CheckpointError) as error:
        resolve_weights(name)
    text = str(error.value)
    assert text.startswith(f"no checkpoint at {name}: train one with `yolox.train`, ")
    assert "yolox_nano, yolox_tiny, yolox_s" in text
    assert meant in text
    assert ("meant" in text) == bool(meant)
