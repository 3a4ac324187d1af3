"""Our section of the host's Settings page."""

from __future__ import annotations

import functools
import json
from typing import Any

import gradio as gr
from modules import shared
from modules.options import OptionHTML, OptionInfo

from lazyneg.core.settings import SETTINGS, Setting
from lazyneg.webui.job import INFOTEXT_AT_ZERO

SECTION = ("lazyneg", "Lazy Negative")
OPEN = "lazyneg_open"
"""Option that javascript/lazyneg.js reads when the page has loaded."""

DEFAULTS_NOTE = (
    "What a new session starts with, in both tabs. The Defaults page keeps the same values, "
    "for each tab its own. Reload the UI to see a change."
)
OPEN_LABEL = "Start with the accordion open, also when it is off"
INFOTEXT_LABEL = "Write the settings into the infotext also when they change nothing"
INFOTEXT_HELP = "critical step 0"


def add_section() -> None:
    """Adds the section; the host calls this each time before it builds the page."""
    options = {
        OPEN: OptionInfo(False, OPEN_LABEL),
        INFOTEXT_AT_ZERO: OptionInfo(True, INFOTEXT_LABEL).info(INFOTEXT_HELP),
        "lazyneg_defaults_note": OptionHTML(DEFAULTS_NOTE),
        **{_option(setting): _info(setting) for setting in SETTINGS},
    }
    for name, info in options.items():
        info.section = SECTION
        shared.opts.add_option(name, info)
    saved = _read()
    for setting in SETTINGS:
        if (key := _keys(setting)[0]) in saved:
            shared.opts.data[_option(setting)] = saved[key]


def _option(setting: Setting) -> str:
    return f"lazyneg_default_{setting.name}"


def _info(setting: Setting) -> OptionInfo:
    component: Any = None
    about: dict[str, Any] = {}
    if setting.slider:
        component = gr.Slider
        minimum, maximum = setting.slider
        about = {"minimum": minimum, "maximum": maximum, "step": 1}
    elif setting.choices:
        component = gr.Radio
        about = {"choices": list(setting.choices)}
    store = functools.partial(_store, setting)
    return OptionInfo(setting.default, setting.label, component, about, onchange=store).info(
        setting.help
    )


def _store(setting: Setting) -> None:
    """Hands a default on to where the host keeps those of all controls."""
    saved = _read()
    saved.update(dict.fromkeys(_keys(setting), getattr(shared.opts, _option(setting))))
    with open(shared.cmd_opts.ui_config_file, "w", encoding="utf8") as file:
        json.dump(saved, file, indent=4, ensure_ascii=False)


def _read() -> dict[str, Any]:
    try:
        with open(shared.cmd_opts.ui_config_file, encoding="utf8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}


def _keys(setting: Setting) -> tuple[str, ...]:
    return tuple(
        f"customscript/lazyneg.py/{tab}/{setting.label}/value" for tab in ("txt2img", "img2img")
    )
