"""Hooking the extension into the host."""

from __future__ import annotations

import inspect

from modules import script_callbacks, scripts


def register() -> type | None:
    """Registers the callbacks and returns the script class, which the host finds by itself.

    Returns ``None`` on a host that does not hand the denoiser to its callbacks, without which
    there is no telling which step is being made, or does not announce each pass.
    """
    given = inspect.signature(script_callbacks.CFGDenoiserParams).parameters
    if "denoiser" not in given or not hasattr(scripts.Script, "process_before_every_sampling"):
        print(
            "Lazy Negative: this WebUI is too old. The extension stays off; "
            "WebUI 1.10.0 or newer is needed."
        )
        return None

    # An old host lacks more than this that they import.
    from lazyneg.webui import axes, options, prompt_tag, sampling
    from lazyneg.webui.script import LazyNegativeScript

    script_callbacks.on_cfg_denoiser(sampling.on_cfg_denoiser)
    script_callbacks.on_ui_settings(options.add_section)
    script_callbacks.on_before_ui(axes.add_axes)
    script_callbacks.on_before_ui(prompt_tag.register_tag)
    return LazyNegativeScript
