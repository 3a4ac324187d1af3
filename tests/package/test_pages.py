"""README in three languages and the pages of docs: settings, links, and the site made of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from lazyneg.core.settings import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = {"README.md": None, "README.ja.md": "ja_JP", "README.zh-CN.md": "zh_CN"}


@pytest.mark.parametrize(("name", "language"), READMES.items())
def test_the_readmes_name_the_settings_of_the_table(name: str, language: str | None) -> None:
    text = (ROOT / name).read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `(\w+)` \| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    assert [row[1] for row in rows] == [setting.name for setting in SETTINGS]
    words: dict[str, str] = {}
    if language:
        words = json.loads((ROOT / "localizations" / f"{language}.json").read_text("utf-8"))
    for (label, _, default), setting in zip(rows, SETTINGS):
        # The first is the accordion's own checkbox.
        if setting.name != "enabled":
            assert label == words.get(setting.label, setting.label)
        if setting.choices or not isinstance(setting.default, (bool, str)):
            assert default.strip("`") == str(setting.default)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the repository's host makes them."""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    titles = [
        "".join(part.content for part in tokens[i + 1].children or [])
        for i, token in enumerate(tokens)
        if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def targets(page: Path) -> Iterator[str]:
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8")):
        for part in token.children or []:
            target = part.attrs.get("href") or part.attrs.get("src")
            if target:
                yield str(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Nothing is fetched from elsewhere by who reads it.
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]+)"',
            page.read_text("utf-8"),
        )
        assert loaded == [], page
