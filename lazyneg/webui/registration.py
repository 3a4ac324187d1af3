"""Hooking the extension into the host."""

from __future__ import annotations

from collections.abc import Callable

from lazyneg import __version__
from lazyneg.webui.host import needs


def register() -> tuple[type | None, type | None]:
    """Registers the callbacks and returns the two scripts, which the host finds by itself.

    ``None`` in place of what this host cannot serve, and why is said.
    """
    if (reason := needs.shortcoming()) is not None:
        print(f"Lazy Negative {__version__} is off: {reason}.")
        return None, None

    # Not before it is sure that the host has what they import.
    from modules import scripts

    from lazyneg.webui import axes, denoising, prompt_tag
    from lazyneg.webui.host import third_row
    from lazyneg.webui.script import LazyNegativeScript

    # Copies share their modules, so that the second would do again all that the first does.
    for loaded in scripts.scripts_data:
        if loaded.script_class is LazyNegativeScript:
            print(f"Lazy Negative is there twice: {loaded.basedir} runs, remove the other copy.")
            return None, None

    print(f"Lazy Negative {__version__}")
    _add_callback("cfg_denoiser", denoising.on_cfg_denoiser)
    if third_row.BY_CALLBACK:
        _add_callback("cfg_denoised", third_row.behind_batch)
    _add_callback("before_ui", prompt_tag.register_tag)
    _add_callback("before_ui", axes.add_axes)
    if _has("the section on the Settings page is", needs.SETTINGS_PAGE):
        from lazyneg.webui import options

        _add_callback("ui_settings", options.add_section)
    if not _has("the comparison in the Script menu is", needs.COMPARISON):
        return LazyNegativeScript, None
    from lazyneg.webui.comparison import LazyNegativeComparison

    return LazyNegativeScript, LazyNegativeComparison


def _add_callback(kind: str, callback: Callable[..., None]) -> None:
    """Adds a callback as the host's ``on_…`` functions do, and tells it whose it is.

    They would find that out by themselves, in more time than all else here takes together.
    """
    from modules import script_callbacks

    callbacks = script_callbacks.callback_map[f"callbacks_{kind}"]
    script_callbacks.add_callback(callbacks, callback, category=kind, filename=__file__)


def _has(part: str, names: needs.Names) -> bool:
    """Whether the host has what a part needs; says so where it has not."""
    lacking = list(needs.missing(names))
    if lacking:
        print(f"Lazy Negative: {part} off, as this WebUI has no {', '.join(lacking)}.")
    return not lacking
