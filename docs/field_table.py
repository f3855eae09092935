"""Write the table of Exp fields into docs/exp_files.md: python docs/field_table.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yolox.exp.recipe
import yolox.exp.voc
import yolox.exp.yolo

PAGE = Path(__file__).parent / "exp_files.md"
START, END = "<!-- fields: python docs/field_table.py -->\n", "<!-- end of fields -->\n"
SOURCES = (
    (yolox.exp.recipe.__file__, ""),
    (yolox.exp.voc.__file__, "VOCExp"),
    (yolox.exp.yolo.__file__, "YOLOExp"),
)
_FIELD = re.compile(
    r"    (?P<name>[a-z]\w*): (?P<kind>[^=]+?) = (?P<value>.+?)(?:  # (?P<what>.+))?$"
)
_COMMENT = re.compile(r"    # (.+)$")
_GROUP = re.compile(
    r"(model|data|augmentation|training|distillation|sparsity training|evaluation)$"
)


def fields(source: Path, title: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Group, name, type, default and meaning of each field that a file declares."""
    group, before = title, ""
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.startswith("    def "):
            return
        if comment := _COMMENT.match(line):
            before = comment[1]
            if not title and _GROUP.match(before):
                group, before = before, ""
            continue
        if (found := _FIELD.match(line)) and not found["name"].startswith("_"):
            yield group, found["name"], found["kind"], found["value"], found["what"] or before
        before = ""


def table() -> str:
    """The table in Markdown."""
    lines = ["| group | field | type | default | what it does |", "|---|---|---|---|---|"]
    for source, title in SOURCES:
        for group, name, kind, value, what in fields(Path(source), title):
            cells = (group, f"`{name}`", f"`{kind}`".replace("|", "\\|"), f"`{value}`", what)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table as it should be."""
    head, rest = PAGE.read_text(encoding="utf-8").split(START)
    return head + START + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
