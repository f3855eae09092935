"""Which translated pages fell behind the English ones: python docs/translations.py.

The first line of a translated page names the English page and the beginning of its SHA-256.
After translating a change: python docs/translations.py --update PAGE [PAGE ...].
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
_MARK = re.compile(r"<!-- follows (?P<page>\S+\.md) at sha256:(?P<digest>[0-9a-f]{12}) -->\n")


def pages(repo: Path = REPO) -> list[Path]:
    """The translated pages."""
    return [repo / "README.zh-CN.md", *sorted((repo / "docs" / "zh").glob("**/*.md"))]


def follows(page: Path, repo: Path = REPO) -> tuple[Path, str]:
    """The English page that a page names, and the digest of the revision it follows.

    Raises:
        ValueError: The first line is not such a mark, or names a page that is not there.
    """
    found = _MARK.match(page.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(
            f"{page}: the first line must be <!-- follows docs/PAGE.md at sha256:DIGEST -->, "
            "DIGEST having 12 hexadecimal digits; begin with zeros, then use --update"
        )
    if not (repo / found["page"]).is_file():
        raise ValueError(f"{page}: the page that it follows, {found['page']}, is not there")
    return repo / found["page"], found["digest"]


def digest(page: Path) -> str:
    """The first 12 digits of a page's SHA-256."""
    return hashlib.sha256(page.read_bytes()).hexdigest()[:12]


def behind(repo: Path = REPO) -> Iterator[tuple[Path, Path]]:
    """Translated pages whose English page changed since, each with that page."""
    for page in pages(repo):
        english, known = follows(page, repo)
        if digest(english) != known:
            yield page, english


def update(page: Path, repo: Path = REPO) -> None:
    """Note in a page that it follows the present English page."""
    english, _ = follows(page, repo)
    rest = page.read_text(encoding="utf-8").split("\n", 1)[1]
    mark = f"<!-- follows {english.relative_to(repo).as_posix()} at sha256:{digest(english)} -->"
    page.write_text(f"{mark}\n{rest}", encoding="utf-8")


def main() -> None:
    """Update the marks of the pages given, or warn of those that fell behind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--update", nargs="+", type=Path, metavar="PAGE", help="pages translated anew"
    )
    try:
        for page in parser.parse_args().update or ():
            update(page)
        for page, english in behind():
            mine, theirs = page.relative_to(REPO), english.relative_to(REPO)
            print(
                f"warning: {mine} is behind {theirs}: translate what changed, then run "
                f"python docs/translations.py --update {mine}"
            )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
