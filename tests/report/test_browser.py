"""The page in a real browser: no complaints, sorting by a click, widths of a phone and a desk."""

from __future__ import annotations

import json
import re
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.browser import BROWSER, FLAGS
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
