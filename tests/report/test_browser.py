"""The page in a real browser: no complaints, sorting by a click, widths of a phone and a desk."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.browser import BROWSER, FLAGS, open_tab
from tests.report.made_up import HOSTILE, full_report
from yolox.report import render
from yolox.utils.printable import printable

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

# Before anything else: errors, and whatever the page's policy stopped.
_COLLECT = """<script>
window.complaints = [];
addEventListener("error", (e) => complaints.push(String(e.message)), true);
addEventListener("securitypolicyviolation", (e) => complaints.push(e.blockedURI));
</script>"""
_TRY = """<script>
const table = document.querySelector("table.%s");
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].firstChild.textContent);
const click = (column) => {
  table.tHead.rows[0].cells[column].querySelector("button").click();
  return names();
};
const orders = [names(), ...%s.map(click)];
const sorted = [...table.tHead.rows[0].cells].map((cell) => cell.getAttribute("aria-sort"));
document.body.innerHTML = "";
document.body.textContent = "RESULT" + JSON.stringify(
  {orders, sorted, complaints, broken: window.broken ?? null}) + "END";
</script>"""
_MEASURE = """<script>
const page = document.documentElement;
const wide = [...document.querySelectorAll("section, header, svg, img, pre, dl")]
  .filter((e) => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth + 1);
parent.document.body.textContent = "RESULT" + JSON.stringify(
  {inner: innerWidth, scroll: page.scrollWidth, wide: wide.map((e) => e.outerHTML.slice(0, 80)),
   complaints}) + "END";
</script>"""
_PRINT = """<script>
const openLists = () => [...document.querySelectorAll("details")].map((list) => list.open);
const states = [openLists()];
for (const name of ["beforeprint", "afterprint"]) {
  dispatchEvent(new Event(name));
  states.push(openLists());
}
document.body.textContent = "RESULT" + JSON.stringify({opened: states, complaints}) + "END";
</script>"""


def _browse(folder: Path, page: Path, *flags: str) -> Any:
    assert BROWSER is not None
    run = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert "CONSOLE" not in run.stderr
    return run


def _on_a_phone(html: str) -> str:
    """A page that holds the other one, 360 pixels wide: a window is 500 at least."""
    return f'<body style="margin:0"><iframe width=360 height=800 srcdoc="{escape(html)}"></iframe>'


def _result(folder: Path, html: str, script: str, *, phone: bool = False) -> Any:
    """What a script at the end of the page finds out."""
    page = folder / "page.html"
    changed = html.replace("<head>", "<head>" + _COLLECT).replace("</body>", script + "</body>")
    page.write_text(_on_a_phone(changed) if phone else changed, encoding="utf-8")
    found = re.search(r"RESULT(.*)END", _browse(folder, page, "--dump-dom").stdout, re.DOTALL)
    assert found
    return json.loads(unescape(found[1]))


def test_a_click_on_a_header_sorts(tmp_path: Path) -> None:
    html = render(full_report(HOSTILE))
    name = printable(HOSTILE)
    result = _result(tmp_path, html, _TRY % ("classes", "[1, 1, 4, 4, 0]"))
    assert result["complaints"] == []
    assert result["broken"] is None
    plain, up, down, change, changed, names = result["orders"]
    assert plain == [name, "dog", "emu", "ant"]
    assert up == ["emu", "dog", name, "ant"]  # as numbers: 0, 9, 10, 100
    assert down == ["ant", name, "dog", "emu"]
    assert change == [name, "ant", "dog", "emu"]  # emu has no figure, and stays at the end
    assert changed == ["dog", "ant", name, "emu"]
    assert names == [name, "ant", "dog", "emu"]
    assert result["sorted"] == ["ascending", *5 * [None]]


def test_nothing_reaches_beyond_a_phone_s_screen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    html = render(full_report("a_long_name_without_any_space_in_it_" * 3))
    result = _result(tmp_path, html, _MEASURE, phone=True)
    assert result["complaints"] == []
    assert result["wide"] == []
    assert result["scroll"] <= result["inner"] == 360
    page.write_text(html, encoding="utf-8")
    for width in (500, 1280):
        shot = tmp_path / f"{width}.png"
        _browse(tmp_path, page, f"--window-size={width},1500", f"--screenshot={shot}")
        pixels = cv2.imread(str(shot))
        assert pixels.shape == (1500, width, 3)
        # Text and figures from top to bottom, not an empty page.
        assert all(pixels[top : top + 300].std() > 5 for top in range(0, 1500, 300))


def test_paper_shows_what_a_click_would_open(tmp_path: Path) -> None:
    html = render(full_report("dog"))
    result = _result(tmp_path, html, _PRINT)
    assert result["complaints"] == []
    opened = result["opened"]
    assert opened[0] == opened[2]
    assert not all(opened[0])
    assert all(opened[1])
    page, paper = tmp_path / "page.html", tmp_path / "paper.pdf"
    page.write_text(html, encoding="utf-8")
    _browse(tmp_path, page, f"--print-to-pdf={paper}")
    pages = len(re.findall(rb"/Type /Page\b", paper.read_bytes()))
    assert 2 <= pages <= 6


_SIGNS = """[...document.querySelectorAll(".frame")].map((frame) => [
  frame.classList.contains("right"),
  frame.firstElementChild.scrollWidth > frame.firstElementChild.clientWidth + 4,
  getComputedStyle(frame, "::after").display !== "none"])"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways_but_what_bears_a_sign(
    tmp_path: Path, scheme: str
) -> None:
    page = tmp_path / "page.html"
    command = "python tools/report.py -c " + "YOLOX_outputs/a/long/path/to/best_ckpt.pth " * 5
    report = dataclasses.replace(full_report(), commands=(command,))
    page.write_text(render(report), encoding="utf-8")
    with open_tab(tmp_path / "profile") as tab:
        tab.size(390, 844, scheme=scheme)
        tab.do("Page.navigate", url=page.as_uri())
        tab.wait("document.readyState === 'complete' && !!document.querySelector('.frame')")
        assert tab.js("document.documentElement.scrollWidth") <= 390
        assert tab.js("document.querySelector('pre').scrollWidth") <= 350
        signs = tab.js(_SIGNS)
        assert any(reaches for _, reaches, _ in signs)
        assert all(sign == reaches == shown for sign, reaches, shown in signs)
        # Verdict and answers are on the first screen, the scales are folded.
        assert tab.js("document.querySelector('.answers').getBoundingClientRect().bottom") < 844
        assert not tab.js("document.querySelector('#scales details').open")
        tab.js("document.querySelector('.models').closest('.scroll').scrollLeft = 10000")
        hidden = "!document.querySelector('.models').closest('.frame').classList.contains('right')"
        assert tab.wait(hidden)
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


def test_the_slider_goes_by_keys(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(full_report()), encoding="utf-8")
    with open_tab(tmp_path / "profile") as tab:
        tab.size(1280, 900)
        tab.do("Page.navigate", url=page.as_uri())
        tab.wait("document.readyState === 'complete' && !!document.querySelector('.slides')")
        tab.js("document.querySelector('.compare input').focus()")
        shown = "document.querySelector('.compare').style.getPropertyValue('--at')"
        assert tab.js(shown) == "50%"
        for key, place in (("ArrowRight", "51%"), ("End", "100%"), ("Home", "0%")):
            code = {"ArrowRight": 39, "End": 35, "Home": 36}[key]
            for kind in ("keyDown", "keyUp"):
                tab.do("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)
            assert tab.js(shown) == place
        text = "document.querySelector('.compare input').getAttribute('aria-valuetext')"
        assert tab.js(text) == "0 % before"
        # Both lie on the same place, as large as each other; the later one is cut at the handle.
        places = tab.js(
            "[...document.querySelectorAll('.compare .shot')].map((shot) => {"
            "const box = shot.getBoundingClientRect(); return [box.left, box.top, box.width]})"
        )
        assert places[0] == places[1]
        assert tab.js("getComputedStyle(document.querySelectorAll('.shot')[1]).clipPath") == (
            "inset(0px 0px 0px 0%)"
        )
        tab.do("Emulation.setEmulatedMedia", media="print")
        lefts = tab.js(
            "[...document.querySelectorAll('.compare img')]"
            ".map((image) => image.getBoundingClientRect().left)"
        )
        assert lefts[0] < lefts[1]
