"""The user's arguments with the negative prompt taken out."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

_TEXT = re.compile(r"neg(ative)?_prompt(_\d+)?")
# Embeddings and what belongs to them (masks, lengths), but not sizes, scores or images.
_ENCODED = re.compile(r"negative_.*(prompt|attention_mask).*")


def negative_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which parameters carry the negative prompt as text, and which in encoded form."""
    names = list(names)
    text = [name for name in names if _TEXT.fullmatch(name)]
    return text, [name for name in names if _ENCODED.fullmatch(name) and name not in text]


def bound(call: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Arguments of a call by name, with defaults.

    Raises:
        TypeError: As the call itself would.
    """
    signature = inspect.signature(call)
    filled = signature.bind(*args, **kwargs)
    filled.apply_defaults()
    arguments = dict(filled.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            raise TypeError(f"{call!r} takes any positional arguments; lazyneg needs named ones")
    return arguments


def has_negative(arguments: dict[str, Any]) -> bool:
    """Whether a negative prompt that is not empty is among the arguments."""
    _, encoded = negative_names(arguments)
    return has_negative_text(arguments) or any(arguments[name] is not None for name in encoded)


def has_negative_text(arguments: dict[str, Any]) -> bool:
    """Whether one of them is a text."""
    text, _ = negative_names(arguments)
    return any(_says_something(arguments[name]) for name in text)


def blanked(arguments: dict[str, Any], early_prompt: str | None) -> dict[str, Any]:
    """``arguments`` with ``early_prompt`` for negative prompt.

    Args:
        arguments: Arguments of the pipeline's call by name; not changed, nor are lists and
            dicts in them that the call might change.
        early_prompt: The text in place of each negative text. ``None`` passes no negative prompt
            at all.

    Raises:
        ValueError: If the pipeline takes its negative prompt in encoded form only and
            ``early_prompt`` is not empty.
    """
    text, encoded = negative_names(arguments)
    blank = {
        name: copy.copy(value) if isinstance(value, (list, dict)) else value
        for name, value in arguments.items()
    }
    blank.update(dict.fromkeys(encoded))
    given = [name for name in text if arguments[name] is not None]
    if early_prompt is None:
        blank.update(dict.fromkeys(given))
    elif given:
        for name in given:
            blank[name] = _filled(arguments[name], early_prompt)
    elif text:
        blank[text[0]] = _filled(_positive(arguments), early_prompt)
    elif early_prompt:
        raise ValueError(
            f"early_prompt is {early_prompt!r}, but this pipeline takes its negative prompt only "
            f"as {', '.join(encoded)}; allowed: an empty early prompt"
        )
    return blank


def _positive(arguments: dict[str, Any]) -> Any:
    """What tells whether prompts are given as one text or as a list of how many."""
    prompt = arguments.get("prompt")
    if prompt is not None:
        return prompt
    embeds = arguments.get("prompt_embeds")
    return "" if embeds is None else [""] * len(embeds)


def _filled(value: Any, text: str) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(item, text) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, text) for key, item in value.items()}
    return text


def _says_something(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_says_something, value))
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    return bool(value)
