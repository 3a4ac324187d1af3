"""What the extension takes from a host is there: the first thing to know of a new version."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazyneg import __version__
from lazyneg.webui.host import needs

from .conftest import TITLE, WebUI
from .hosts import Host

TAKEN = [*needs.NAMES.items(), *needs.SETTINGS_PAGE.items(), *needs.COMPARISON.items()]


def test_every_name_is_in_the_hosts_source(host: Host) -> None:
    """Without starting it, so that a removal has a name."""
    lacking = [
        f"{module}.{name}"
        for module, names in TAKEN
        if module.startswith("modules.")
        for name in names
        if name not in set(named(host.folder, module))
    ]
    assert lacking == []


def named(folder: Path, module: str) -> Iterator[str]:
    """The names at the top of a module of the host, or that it declares global."""
    path = folder.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.exists():
        return
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node in tree.body:
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_it_has_loaded(webui: WebUI) -> None:
    log = webui.log.read_text(errors="replace").splitlines()
    assert {line for line in log if "Lazy Negative" in line} == {f"Lazy Negative {__version__}"}
    for tab in ("txt2img", "img2img"):
        assert TITLE.lower() in webui.get("scripts")[tab]


@pytest.mark.parametrize("hires", [False, True])
def test_every_attribute_is_there_while_a_picture_is_made(webui: WebUI, hires: bool) -> None:
    about = {"enable_hr": True, "denoising_strength": 0.7, "hr_scale": 1.5} if hires else {}
    made = webui(steps=2, support={"contract": True}, **about)
    assert made.params["Contract"] == {"missing": []}
