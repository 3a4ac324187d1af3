"""Delay the negative prompt of Stable Diffusion until there is something to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyneg.diffusers import apply as apply
    from lazyneg.diffusers import forward_lazy_negative as forward_lazy_negative
    from lazyneg.diffusers import lazy_negative as lazy_negative
    from lazyneg.diffusers import remove as remove
    from lazyneg.diffusers import sweep_steps as sweep_steps

__version__ = "0.1.0"

__all__ = ["apply", "forward_lazy_negative", "lazy_negative", "remove", "sweep_steps"]

if not TYPE_CHECKING:  # or else every name would be there

    def __getattr__(name: str) -> Any:
        # Not imported before use: the WebUI imports this package too.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import lazyneg.diffusers

        return getattr(lazyneg.diffusers, name)
