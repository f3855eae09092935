"""Links lead somewhere, every page is in the navigation, and the site builds without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import LOG, PAGES, anchors, links, name
from tests.runs import REPO


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def _files(nav: Any) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else _files(value)


@pytest.mark.parametrize(("config", "folder"), [("mkdocs", "docs"), ("mkdocs.zh", "docs/zh")])
def test_every_page_is_in_the_navigation(config: str, folder: str) -> None:
    settings = yaml.safe_load((REPO / f"{config}.yml").read_text(encoding="utf-8"))
    there = {file.name for file in (REPO / folder).glob("*.md")}
    if folder == "docs":
        there.add(LOG.name)  # by docs/log_page.py
    assert sorted(_files(settings["nav"])) == sorted(there)


def test_results_are_one_page() -> None:
    assert len((REPO / "docs" / "results.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
@pytest.mark.parametrize("config", ["mkdocs.yml", "mkdocs.zh.yml"])
def test_site_builds_without_a_warning(config: str, tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", str(tmp_path)],
        cwd=REPO,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "index.html").is_file()
