from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.browser.conftest import Page
from tests.host.conftest import WebUI

FOLDER = Path(__file__).parents[2] / "localizations"
TEXTS = """
root => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walker.nextNode()) texts.push(walker.currentNode.data.trim());
    // Elsewhere they are Gradio's.
    for (const node of root.querySelectorAll(".lazyneg-timeline *"))
        for (const name of ["aria-label", "aria-valuetext", "aria-description"])
            texts.push((node.getAttribute(name) || "").trim());
    return texts.filter(Boolean);
}
"""


@pytest.mark.parametrize("language", ["ja_JP", "zh_CN"])
def test_nothing_is_left_in_english(page: Page, server: WebUI, language: str) -> None:
    server.options(localization=language)
    try:
        page.reload_ui()
        page.enable()
        page.hires_fix()
        page.track().hover()
        page.settle()
        shown = page.own("txt2img", "enabled").evaluate(TEXTS)
        shown += page.raw.locator("#column_settings_lazyneg").evaluate(TEXTS)
        left = [text for text in shown if english(text, language)]
        assert not left
        assert len(shown) > 40
    finally:
        server.options(localization="None")
        page.reload_ui()


def english(text: str, language: str) -> bool:
    """Whether a text has words and is none of the translations, with whatever is filled in."""
    entries = json.loads((FOLDER / f"{language}.json").read_text("utf-8"))
    lines = [re.sub(r"\\{\w+\\}", ".+", re.escape(entry)) for entry in entries.values()]
    pattern = f"(({'|'.join(lines)})\\s*)+"
    return bool(re.search("[A-Za-z]", text)) and not re.fullmatch(pattern, text, re.DOTALL)
