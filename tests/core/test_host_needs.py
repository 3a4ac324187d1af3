"""The list of what the extension takes from a host is what its code takes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from lazyneg.webui.host import needs

FOLDER = Path(needs.__file__).parents[1]
TREES = {file: ast.parse(file.read_text("utf-8")) for file in FOLDER.rglob("*.py")}
MODULES = ("backend", "gradio", "ldm_patched", "modules", "modules_forge")


def taken() -> set[str]:
    """Every name of a module of the host that the code mentions."""
    found = set()
    for tree in TREES.values():
        local = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if node.module == "modules":
                        local[alias.asname or alias.name] = name
                    else:
                        found.add(name)
            elif isinstance(node, ast.Import):
                local |= {a.asname or a.name: a.name for a in node.names if a.name in MODULES}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in local
            ):
                found.add(f"{local[node.value.id]}.{node.attr}")
    return found


def listed() -> set[str]:
    tables = (needs.NAMES, needs.SETTINGS_PAGE, needs.COMPARISON, needs.OPTIONAL)
    names = {
        f"{module}.{name}"
        for table in tables
        for module, names in table.items()
        for name in names
        if module.split(".")[0] in MODULES
    }
    return names | {f"modules.shared.{name}" for name in needs.ATTRIBUTES["shared"]}


def test_the_list_has_every_name_and_no_other() -> None:
    assert taken() == listed()


@pytest.mark.parametrize(
    ("variable", "owners"),
    [
        ("p", ("p", "hires")),
        ("params", ("params",)),
        ("denoiser", ("denoiser",)),
    ],
)
def test_the_list_has_every_attribute(variable: str, owners: tuple[str, ...]) -> None:
    used = {
        node.attr
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == variable
    } - {"__dict__"}
    if variable == "p":
        # Asked for by name where only some hosts have it, or some passes.
        used |= {
            str(node.args[1].value)
            for tree in TREES.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "getattr"
            and isinstance(node.args[0], ast.Name)
            and node.args[0].id == "p"
            and isinstance(node.args[1], ast.Constant)
        }
    allowed = {name for owner in owners for name in needs.ATTRIBUTES[owner]}
    assert used - set(needs.OPTIONAL.get(variable, ())) == allowed


@pytest.mark.parametrize("owner", ["sampler", "sd_model", "opts", "cmd_opts"])
def test_the_list_has_what_is_reached_through_another(owner: str) -> None:
    used = {
        node.attr
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == owner
    }
    if owner == "sampler":
        # A method that is looked for on the stack, by its name.
        used |= {
            node.value
            for node in ast.walk(TREES[FOLDER / "host" / "steps.py"])
            if isinstance(node, ast.Constant) and node.value == "launch_sampling"
        }
    assert used - set(needs.OPTIONAL.get(owner, ())) == set(needs.ATTRIBUTES[owner])


def test_the_list_has_every_local_variable() -> None:
    """They are looked up by their names, in what a frame of the host holds."""
    tree = TREES[FOLDER / "host" / "third_row.py"]
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {name for names in needs.LOCALS.values() for name in names} <= texts
    looked_up = {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("call", "host")
        and isinstance(node.slice, ast.Constant)
    }
    assert looked_up <= {name for names in needs.LOCALS.values() for name in names}
