"""Hooking the extension into the host."""

from __future__ import annotations

import inspect

from modules import script_callbacks

from lazyneg.webui import axes, options, prompt_tag, sampling


def register() -> type | None:
    """Registers the callbacks and returns the script class, which the host finds by itself.

    Returns ``None`` on a host that does not hand the denoiser to its callbacks: without it there
    is no telling which step is being made.
    """
    if "denoiser" not in inspect.signature(script_callbacks.CFGDenoiserParams).parameters:
        print(
            "Lazy Negative: this WebUI is too old (its CFG denoiser callback lacks `denoiser`). "
            "The extension stays off; WebUI 1.8.0 or newer is needed."
        )
        return None

    from lazyneg.webui.script import LazyNegativeScript

    script_callbacks.on_cfg_denoiser(sampling.on_cfg_denoiser)
    script_callbacks.on_ui_settings(options.add_section)
    script_callbacks.on_before_ui(axes.add_axes)
    script_callbacks.on_before_ui(prompt_tag.register_tag)
    return LazyNegativeScript
