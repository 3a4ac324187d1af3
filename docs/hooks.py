"""What the site needs beside the pages, which the repository's host shows too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, *, config: Any) -> Files:
    """The changelog becomes a page of the site."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links to what lies outside of docs lead to the repository."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def absolute(match: re.Match[str]) -> str:
        path = (folder / match[1]).resolve().relative_to(ROOT)
        return f"]({config.repo_url}/blob/main/{path})"

    outside = r"\]\(((?:\.\./)+(?!docs/)[^)#]+)\)"
    return re.sub(
        outside,
        lambda match: (
            match[0]
            if (folder / match[1]).resolve().is_relative_to(ROOT / "docs")
            else absolute(match)
        ),
        markdown,
    )


def on_page_content(html: str, **_: Any) -> str:
    """Roles in docstrings, which other tools read, become plain code."""
    html = re.sub(r":(?:class|func|meth):(?=<code>)", "", html)
    return re.sub(r"\[(<code>)~?(?:[\w.]*\.)?(\w+)(</code>)\]", r"\1\2\3", html)
