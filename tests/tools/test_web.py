"""The page to try models: its words and pictures, and the whole of it in a real browser."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.browser import BROWSER, Tab, open_tab
from tests.runs import REPO, command, environment, error_lines, opinionated
from yolox.predict import load
from yolox.tools import web
from yolox.utils.errors import UserError
from yolox.web import (
    MAX_SIDE,
    MIN_SCORE,
    Candidate,
    detect_all,
    draw_detections,
    headline,
    load_candidates,
)

HOSTILE = "<img src=x onerror=alert(1)>"
in_browser = pytest.mark.skipif(
    BROWSER is None or importlib.util.find_spec("gradio") is None,
    reason="needs Chromium and Gradio",
)


@pytest.fixture(scope="session")
def sure(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds something in every picture, by scores between 0.1 and 0.9."""
    file = tmp_path_factory.mktemp("sure") / "best_ckpt.pth"
    return opinionated(trained / "best_ckpt.pth", file, (-1.0, 0.5, 2.0))


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture wider than the page shows it."""
    pixels = np.random.default_rng(0).integers(0, 255, (300, 1600, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("photo") / "wide photo.png"
    cv2.imwrite(str(file), cv2.GaussianBlur(pixels, (9, 9), 0))
    return file


# ------------------------------------------------------------------------------ words and pictures


def test_models_of_one_name_are_told_apart(trained: Path, sure: Path) -> None:
    candidates = load_candidates([trained / "best_ckpt.pth", sure])
    labels = [candidate.label for candidate in candidates]
    assert labels == ["tiny/best_ckpt.pth", f"{sure.parent.name}/best_ckpt.pth"]
    assert {candidate.detector.conf for candidate in candidates} == {MIN_SCORE}
    size = (trained / "best_ckpt.pth").stat().st_size
    assert candidates[0].facts[0] == f"{size / 1e6:.1f} MB"
    assert candidates[0].facts[1].endswith("M parameters")
    with pytest.raises(UserError, match="a file is given twice"):
        load_candidates([sure, sure])


def test_a_threshold_shows_what_a_model_finds_at_it(sure: Path, photo: Path) -> None:
    (candidate,) = load_candidates([sure])
    image = cv2.imread(str(photo))
    assert image is not None
    (shown,) = detect_all([candidate], image)
    assert shown.image.shape == (240, MAX_SIDE, 3)
    assert shown.boxes[:, 2].max() <= MAX_SIDE
    scores = np.unique(shown.scores)
    assert len(scores) > 1
    threshold = float(scores[-1])
    (found,) = load(sure, conf=threshold - 1e-6).predict(image)
    kept = shown.scores >= threshold
    assert 0 < len(found) == kept.sum() < len(kept)
    np.testing.assert_allclose(shown.boxes[kept], found.boxes * 0.8, rtol=1e-5, atol=1e-3)
    assert not np.array_equal(draw_detections(shown, threshold), draw_detections(shown, MIN_SCORE))
    np.testing.assert_array_equal(draw_detections(shown, 1.01), shown.image[..., ::-1])
    assert "nothing with a score of 1.00 or more" in headline(candidate, shown, 1.0)


def test_names_are_escaped(sure: Path, photo: Path) -> None:
    detector = load(sure, conf=MIN_SCORE)
    object.__setattr__(detector, "names", (HOSTILE,) * 3)
    candidate = Candidate(label=HOSTILE, detector=detector, facts=(HOSTILE,))
    (shown,) = detect_all([candidate], cv2.imread(str(photo)))  # type: ignore[list-item]
    text = headline(candidate, shown, MIN_SCORE)
    assert "<img" not in text
    assert text.count("&lt;img") >= 3


# ----------------------------------------------------------------------------------- bad input


def test_no_gradio_is_one_line(
    sure: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command(web.main, "-c", sure) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "the page needs gradio, not installed here: pip install gradio" in error


def test_a_port_in_use_is_one_line(
    sure: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web, "import_gradio", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command(web.main, "-c", sure, "--port", port) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert f"cannot serve at 127.0.0.1, port {port} (Address already in use)" in error
    assert "--port" in error
    assert command(web.main, "-c", sure, "--host", "no such host", "--port", port) == 1
    (error,) = error_lines(capsys.readouterr().err)
    assert "cannot serve at no such host" in error
    assert command(web.main, "-c", sure, "--port", "70000") == 1
    assert "must be at most 65535" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- in a browser


@contextmanager
def _served(folder: Path, *files: Path) -> Iterator[str]:
    """The address of the command's page, which Ctrl-C ends well."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [sys.executable, REPO / "tools" / "web.py", "-c", *files, "--port", port]
    process = subprocess.Popen(
        list(map(str, words)),
        cwd=folder,
        env=environment() | {"TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if " in a browser" in line:
                break
        assert "open http://127.0.0.1:" in "".join(lines), lines
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
        assert process.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


_WORDS = "[...document.querySelectorAll('.model')].map((e) => e.innerText).join('|')"
_LOADED = (
    "[...document.querySelectorAll('.detections img')].filter((i) => i.naturalWidth).length === 2"
)
_DRAWN = "document.querySelector('.detections img').src"
_SLIDE = """(() => {
  const slider = document.querySelector("#threshold input[type=range]");
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(slider, "1");
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  slider.dispatchEvent(new Event("change", {bubbles: true}));
})()"""


@in_browser
@pytest.mark.slow
def test_a_picture_is_shown_with_every_model_s_detections(
    trained: Path, sure: Path, photo: Path, tmp_path: Path
) -> None:
    with (
        _served(tmp_path, sure, trained / "best_ckpt.pth") as address,
        open_tab(tmp_path / "profile") as tab,
    ):
        tab.size(1280, 900)
        tab.do("Page.navigate", url=address)
        tab.wait("!!document.querySelector('#picture input[type=file]')")
        tab.choose_file("#picture input[type=file]", photo)
        tab.wait(_LOADED)
        words = tab.js(_WORDS)
        assert "tiny/best_ckpt.pth" in words
        assert words.count("ms ·") == 2
        assert words.count("MB ·") == 2
        for name, width, scheme in (("wide", 1280, "light"), ("phone", 390, "light")):
            _look_right(tab, tmp_path / f"{name}.png", width, scheme)

        before = tab.js(_DRAWN)
        tab.js(_SLIDE)
        tab.wait(f"{_WORDS}.includes('nothing with a score of 1.00 or more')")
        tab.wait(f"{_DRAWN} !== {before!r} && {_LOADED}")

        no_picture = tmp_path / "no_picture.png"
        no_picture.write_bytes(photo.read_bytes()[:2000])
        tab.js("document.querySelector('#picture button[aria-label=Clear]')?.click()")
        tab.wait("!!document.querySelector('#picture input[type=file]')")
        tab.choose_file("#picture input[type=file]", no_picture)
        tab.wait("document.body.innerText.includes('no_picture.png cannot be decoded')")
        assert "/yolox_web_" not in tab.js("document.body.innerText")

        hosts = {url.split("/")[2] for url in tab.requests if url.startswith(("http", "ws"))}
        assert hosts == {address.removeprefix("http://")}
        assert tab.complaints == []
    assert not list(tmp_path.glob("yolox_web_*"))


def _look_right(tab: Tab, file: Path, width: int, scheme: str) -> None:
    """Nothing reaches beyond the window, and there is something to see in it."""
    tab.size(width, 900, scheme=scheme)
    tab.wait(f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
    tab.screenshot(file)
    pixels = cv2.imread(str(file))
    assert pixels is not None
    assert pixels.shape == (900, width, 3)
    assert pixels[:400].std() > 10
