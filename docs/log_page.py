"""The laboratory log is a page of the site, though it lies beside what it was measured with.

mkdocs.yml names this file as a hook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LOG = Path(__file__).resolve().parent.parent / "benchmarks" / "log.md"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the log to the pages, as if it lay in their folder."""
    files.append(File.generated(config, LOG.name, abs_src_path=str(LOG)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links between the two folders of the repository to their place on the site."""
    if page.file.src_uri == LOG.name:
        return markdown.replace("](../docs/", "](")
    return markdown.replace("](../benchmarks/log.md", "](log.md")
