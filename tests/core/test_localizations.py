from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from lazyneg.core.settings import SETTINGS
from tests.core.test_page_arithmetic import in_node

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "localizations").glob("*.json"))


def constants(module: str) -> dict[str, object]:
    """The literals that a module of the WebUI's side names: importing it takes the host."""
    tree = ast.parse((ROOT / "lazyneg" / "webui" / module).read_text("utf-8"))
    found: dict[str, object] = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)):
            try:
                found[target.id] = ast.literal_eval(node.value or ast.Constant(None))
            except ValueError:
                continue
    return found


def visible() -> set[str]:
    """Every string of ours that a page can show."""
    strings = set(in_node("console.log(JSON.stringify(Object.values(lazyneg.TEXTS)));"))
    for setting in SETTINGS:
        # The Settings page puts explanations in brackets.
        strings |= {setting.label, setting.help, f"({setting.help})", *setting.choices}
    options = constants("options.py")
    strings |= {str(options[name]) for name in ("DEFAULTS_NOTE", "OPEN_LABEL", "INFOTEXT_LABEL")}
    strings.add(f"({options['INFOTEXT_HELP']})")
    comparison = constants("comparison.py")
    strings |= {str(comparison[name]) for name in ("TITLE", "ABOUT", "LABEL", "HELP")}
    axes = constants("axes.py")["AXES"]
    assert isinstance(axes, tuple)
    strings |= {f"[Lazy Negative] {name}" for name, _ in axes}
    return strings


def test_there_are_two() -> None:
    assert [file.stem for file in FILES] == ["ja_JP", "zh_CN"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_visible_string_has_its_entry(file: Path) -> None:
    entries = json.loads(file.read_text("utf-8"))
    assert entries.keys() == visible()
    for text, translation in entries.items():
        assert translation
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", translation))
