"""Each translated page names the English page that it follows, and is told when that changes."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import pytest

from tests.docs.pages import name
from tests.runs import REPO

TOOL = runpy.run_path(str(REPO / "docs" / "translations.py"))
OLD = "<!-- follows docs/a.md at sha256:000000000000 -->\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository of one page and its translation, which is behind."""
    (tmp_path / "docs" / "zh").mkdir(parents=True)
    (tmp_path / "docs" / "a.md").write_text("# Prune\n", encoding="utf-8")
    (tmp_path / "docs" / "zh" / "a.md").write_text(f"{OLD}# 剪枝\n", encoding="utf-8")
    readme = TOOL["digest"](tmp_path / "docs" / "a.md")
    (tmp_path / "README.zh-CN.md").write_text(OLD.replace("0" * 12, readme), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", TOOL["pages"](), ids=name)
def test_page_names_its_english_page(page: Path) -> None:
    english, _ = TOOL["follows"](page)
    counterpart = "README.md" if page.name == "README.zh-CN.md" else f"docs/{page.name}"
    assert name(english) == counterpart


def test_a_page_behind_is_found_and_updated(repo: Path) -> None:
    page, english = repo / "docs" / "zh" / "a.md", repo / "docs" / "a.md"
    assert list(TOOL["behind"](repo)) == [(page, english)]
    TOOL["update"](page, repo)
    assert not list(TOOL["behind"](repo))
    digest = hashlib.sha256(b"# Prune\n").hexdigest()[:12]
    assert page.read_text(encoding="utf-8") == OLD.replace("0" * 12, digest) + "# 剪枝\n"


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ("# 剪枝\n", "the first line must be"),
        (OLD.replace("000000000000", "0"), "the first line must be"),
        (OLD.replace("docs/a.md", ""), "the first line must be"),
        (f"\n{OLD}", "the first line must be"),
        (OLD.replace("a.md", "b.md"), r"docs/b\.md, is not there"),
    ],
)
def test_a_wrong_mark_is_refused(repo: Path, mark: str, reason: str) -> None:
    page = repo / "docs" / "zh" / "a.md"
    page.write_text(mark, encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        list(TOOL["behind"](repo))
