"""Axes of the host's X/Y/Z plot."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from modules import scripts

from lazyneg.core.settings import BY_NAME
from lazyneg.webui.job import OVERRIDES

AXES: tuple[tuple[str, str], ...] = (
    ("Critical step", "critical_step"),
    ("Stop step", "stop_step"),
    ("Hires", "hires"),
    ("Enabled", "enabled"),
    ("Area", "area"),
    ("Adaptive", "adaptive"),
)


def add_axes() -> None:
    """Adds the axes to the X/Y/Z plot script, where the host has one."""
    for script in scripts.scripts_data:
        if os.path.basename(script.path) == "xyz_grid.py":
            options = script.module.axis_options
            for name, setting in AXES:
                label = f"[Lazy Negative] {name}"
                if all(option.label != label for option in options):
                    options.append(script.module.AxisOption(label, _type(setting), _apply(setting)))


def _type(name: str) -> Callable[[str], object]:
    """How the host reads a typed value. Ranges are only read for `int` itself.

    No list of choices is offered for texts: with one, the host takes values from a dropdown that
    API clients do not fill, and draws nothing.
    """
    setting = BY_NAME[name]
    if isinstance(setting.default, bool):
        return _flag
    if isinstance(setting.default, int):
        return int
    return str


def _flag(text: str) -> bool:
    flags = {"true": True, "false": False}
    if text.lower() not in flags:
        raise ValueError(f"{text!r} is not allowed on this axis; allowed: True, False")
    return flags[text.lower()]


def _apply(name: str) -> Callable[[Any, object, object], None]:
    def apply(p: Any, value: object, values: object) -> None:
        # A new dict: the plot copies the processing object for each cell, not what it holds.
        setattr(p, OVERRIDES, {**getattr(p, OVERRIDES, {}), name: value})

    return apply
