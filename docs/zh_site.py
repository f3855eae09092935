"""What MkDocs does for the Chinese pages beyond mkdocs.zh.yml, which names this file as a hook."""

from __future__ import annotations

import re
from typing import Any

from pymdownx.slugs import slugify

_PICTURE = re.compile(r"!\[(?P<text>[^]]*)\]\(\.\./(?P<path>[^)\s]+)\)")
_ENGLISH = re.compile(r"\]\(\.\./(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: Any) -> None:
    """Give headings anchors in their own characters, as GitHub does."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to English files, one folder up, to their place on the English site.

    Pictures become HTML, since MkDocs looks for those of Markdown among the Chinese files.
    """
    up = "../" if page.is_homepage else "../../"

    def link(found: re.Match[str]) -> str:
        path = re.sub(r"(index)?\.md$", "/", found["path"]).removeprefix("/")
        return f"]({up}{path}{found['anchor'] or ''})"

    markdown = markdown.replace("](../../benchmarks/log.md", "](../log.md")  # see log_page.py
    markdown = _PICTURE.sub(rf'<img alt="\g<text>" src="{up}\g<path>">', markdown)
    return _ENGLISH.sub(link, markdown)
