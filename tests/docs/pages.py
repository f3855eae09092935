"""What stands in the pages: code blocks, lines of command, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.runs import REPO
from yolox.tools.door import COMMANDS

LOG = REPO / "benchmarks" / "log.md"
PAGES = (*sorted(REPO.glob("README*.md")), *sorted((REPO / "docs").glob("**/*.md")), LOG)
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```",
    re.S | re.M,
)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A code block; `reason` says why it is not run, and is empty where it is."""

    language: str
    text: str
    reason: str = ""


def name(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(REPO).as_posix()


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page."""
    return [
        Block(language=m["language"], text=m["text"], reason=m["reason"] or "")
        for m in _FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands in backticks."""
    return [text.replace("\\|", "|") for text in _INLINE.findall(prose(page))]


def shell_lines(page: Path) -> Iterator[list[str]]:
    """The words of each line of command in the blocks of a page, without comments."""
    for block in blocks(page):
        if block.language in ("", "bash"):
            for line in block.text.replace("\\\n", " ").splitlines():
                if re.match(r"(yolox|python|torchrun|srun|pip|make|mkdocs) ", line.strip()):
                    yield shlex.split(line, comments=True)


def command(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of the command that a line runs, and the command's words; None for others."""
    if words[0] == "yolox":
        for length in (2, 1):
            if (name := " ".join(words[1 : 1 + length])) in COMMANDS:
                return COMMANDS[name][0], words[1 + length :]
        return None
    for place, word in enumerate(words):
        if found := re.fullmatch(r"tools/(\w+)\.py", word):
            return found[1], words[place + 1 :]
    return None


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in plain}


def links(page: Path) -> list[str]:
    """The targets of links and pictures that are no addresses."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target for target in found if not re.match(r"[a-z]+:", target)]
