"""Imports point inwards: the core knows neither front, the fronts do not know each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lazyneg"
MAY_IMPORT = {
    "core": {"core"},
    "webui": {"core", "webui"},
    "diffusers": {"core", "diffusers"},
    "painting": {"core", "diffusers", "painting"},
    "sweep": {"core", "painting", "sweep"},
    "demo": {"core", "diffusers", "painting", "sweep", "demo"},
    "play": {"core", "painting", "demo", "play"},
    "cli": {"core", "painting", "sweep", "demo", "play", "cli"},
}
"""Each folder with those of the package that it may import. ``lazyneg`` itself has the names that
stand for ``lazyneg.diffusers``."""
FRONTS = ("diffusers", "transformers", "gradio", "modules")


def imported(file: Path) -> Iterator[str]:
    """The modules that a file names in its imports, whenever they are executed."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_inwards(folder: str) -> None:
    for file in (PACKAGE / folder).rglob("*.py"):
        for module in imported(file):
            parts = module.split(".")
            if parts[0] == "lazyneg" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                assert parts[1] in MAY_IMPORT[folder], f"{file} imports {module}"
            if folder == "core":
                assert parts[0] not in ("modules", "gradio", "diffusers", "transformers"), module


def test_every_folder_has_its_place() -> None:
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert folders == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("lazyneg", FRONTS),
        ("lazyneg.core.conditioning", FRONTS),
        ("lazyneg.core.tag", FRONTS),
        # Help and refusals come at once.
        ("lazyneg.cli", (*FRONTS, "PIL", "numpy", "torch")),
    ],
)
def test_what_is_not_loaded_before_it_is_used(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}\nprint([name for name in {unwanted} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
