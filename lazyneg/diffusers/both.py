"""Tensors in two forms, which the code of a pipeline handles as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import leaves, replaced

_WRITES = re.compile(r"\w*[^_]_|__setitem__|__i(?!nt|nvert|ndex|ter)\w+__")
"""Names of functions that change their first argument: ``add_``, ``__iadd__``."""


class Both(torch.Tensor):
    """A tensor that a pipeline has of an empty negative prompt, and the same of the given one.

    What a pipeline makes of it is made of both. So what one model gave can be handed to the next
    in either form, whatever is done with it on the way: residuals of a ControlNet are scaled, put
    together and padded with zeros.
    """

    blank: torch.Tensor
    given: torch.Tensor
    usable: Callable[[], bool]
    """Whether it is still in the step in which it was made."""

    @classmethod
    def of(cls, blank: Any, given: Any, usable: Callable[[], bool]) -> Any:
        """Of two values that differ in their tensors only."""
        if isinstance(blank, torch.Tensor):
            made = blank.as_subclass(cls)
            made.blank, made.given, made.usable = blank, given, usable
            return made
        others = dict(leaves(given))
        news = {path: cls._result(leaf, others[path], usable) for path, leaf in leaves(blank)}
        return replaced(blank, news) if news else blank

    @classmethod
    def _result(cls, blank: Any, given: Any, usable: Callable[[], bool]) -> Any:
        if isinstance(blank, torch.Tensor):
            return cls.of(blank, given, usable)
        if type(blank).__module__ == "numpy" or blank != given:
            raise DelayError(
                "the pipeline takes what one model gives the next out of PyTorch: what it would be "
                "of the negative prompt cannot be told, as area and adaptive need it"
            )
        return blank

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            every = args, kwargs or {}
            both = [leaf for _, leaf in leaves(every) if isinstance(leaf, cls)]
            if not all(one.usable() for one in both):
                raise DelayError(
                    "what the denoiser gives in a step goes both into the picture and into another "
                    "model: area and adaptive cannot choose from it"
                )
            written = _WRITES.fullmatch(func.__name__)
            if every[1].get("out") is not None or (written and not isinstance(args[0], cls)):
                raise DelayError(
                    "the pipeline writes what one model gives the next into another tensor: area "
                    "and adaptive cannot follow it"
                )
            blank_args, blank_kwargs = form(every, "blank")
            given_args, given_kwargs = form(every, "given")
            blank = func(*blank_args, **blank_kwargs)
            given = func(*given_args, **given_kwargs)
            if written:
                return args[0]
            return cls.of(blank, given, both[0].usable)


def form(value: Any, which: str) -> Any:
    """``value`` with each :class:`Both` in it in the form ``blank`` or ``given``."""
    found = {path: getattr(leaf, which) for path, leaf in leaves(value) if isinstance(leaf, Both)}
    return replaced(value, found) if found else value


def tracked(value: Any) -> Any:
    """``value`` with tensors that can be told from all else, as what is made of them can."""
    news = {
        path: Both.of(leaf, leaf, lambda: True)
        for path, leaf in leaves(value)
        if isinstance(leaf, torch.Tensor)
    }
    return replaced(value, news) if news else value
