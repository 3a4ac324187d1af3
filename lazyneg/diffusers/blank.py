"""The user's arguments, and the same with the negative prompt taken out."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lazyneg.core.settings import SettingsError

_PICTURES = re.compile(r"num_[a-z]+_per_prompt")
_ANY_TEXT = re.compile(r"(neg(ative)?_)?prompt(_\d+)?")
_TEXT = re.compile(r"neg(ative)?_prompt(_\d+)?")
# Embeddings and what belongs to them (masks, lengths), but not sizes, scores or images. Those of a
# picture are a prompt where a prior made them of one.
_ENCODED = re.compile(r"negative_(.*(prompt|attention_mask).*|image_embeds)")


def negative_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which parameters carry the negative prompt as text, and which in encoded form."""
    names = list(names)
    text = [name for name in names if _TEXT.fullmatch(name)]
    return text, [name for name in names if _ENCODED.fullmatch(name) and name not in text]


def early_name(name: str) -> str:
    """What an encoded form of the negative prompt is called for the early steps."""
    return name.replace("negative_", "early_", 1)


@dataclass
class Early:
    """What takes the negative prompt's place in the steps where it does not act.

    Attributes:
        prompt: A text; ``None`` passes none at all.
        encoded: Embeddings and what belongs to them in place of a text, by the names that the
            pipeline gives to those of the negative prompt.
    """

    prompt: str | None
    encoded: dict[str, Any]


@dataclass
class Parameters:
    """What a pipeline's call takes.

    Attributes:
        positional: Names of the positional arguments, in order, without ``self``.
        defaults: Names of all arguments with their defaults, ``None`` where there is none.
    """

    positional: list[str]
    defaults: dict[str, Any]

    @classmethod
    def of(cls, pipe: Any, plain: type) -> Parameters:
        """Those of a pipeline of class ``plain``.

        A call that takes any arguments is taken to hand them to the class that it derives from.
        """
        positional, defaults = cls._of_class(plain, plain.__call__)
        if blocks := getattr(pipe, "blocks", None):
            defaults = {**defaults, **dict.fromkeys(blocks.input_names)}
        return cls(positional, defaults)

    @staticmethod
    @functools.cache
    def _of_class(plain: type, _: Any) -> tuple[list[str], dict[str, Any]]:
        """As the attributes. Looked up once for each function that is the class's call."""
        positional: list[str] = []
        defaults: dict[str, Any] = {}
        for kind in plain.__mro__:
            if "__call__" not in vars(kind):
                continue
            parameters = [*inspect.signature(vars(kind)["__call__"]).parameters.values()][1:]
            passes_on = False
            for parameter in parameters:
                if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    passes_on = True
                    continue
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    positional.append(parameter.name)
                default = None if parameter.default is parameter.empty else parameter.default
                defaults.setdefault(parameter.name, default)
            if not passes_on:
                break
        return positional, defaults


@dataclass
class Arguments:
    """The arguments of one call.

    Attributes:
        parameters: What the call takes.
        args: Positional arguments, as they were given.
        kwargs: Named arguments, as they were given.
    """

    parameters: Parameters
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def by_name(self) -> dict[str, Any]:
        """All of them by name, with defaults."""
        values = {
            **self.parameters.defaults,
            **dict(zip(self.parameters.positional, self.args)),
            **self.kwargs,
        }
        if (state := values.get("state")) is not None:
            # A modular pipeline goes on from where another ended.
            text, encoded = negative_names(state.values)
            values.update(
                {name: state.values[name] for name in (*text, *encoded) if values.get(name) is None}
            )
        return values

    def with_values(self, news: Mapping[str, Any]) -> Arguments:
        """These with others in place of some, in the form in which they were given."""
        positional = self.parameters.positional[: len(self.args)]
        args = (
            *(news.get(name, value) for name, value in zip(positional, self.args)),
            *self.args[len(positional) :],
        )
        named = {name: value for name, value in news.items() if name not in positional}
        return Arguments(self.parameters, args, {**self.kwargs, **named})


def has_negative(arguments: Arguments) -> bool:
    """Whether a negative prompt that is not empty is among the arguments."""
    values = arguments.by_name
    text, encoded = negative_names(values)
    return any(_says_something(values[name]) for name in text) or any(
        values[name] is not None for name in encoded
    )


def blanked(arguments: Arguments, early: Early) -> Arguments:
    """``arguments`` with ``early`` in place of the negative prompt.

    Raises:
        SettingsError: If the pipeline takes its negative prompt in encoded form only and the early
            one is a text that is not empty.
    """
    values = arguments.by_name
    text, encoded = negative_names(values)
    given = [name for name in text if values[name] is not None]
    news = dict.fromkeys(name for name in encoded if values[name] is not None)
    if early.encoded:
        news.update({**dict.fromkeys(given), **early.encoded})
    elif early.prompt is None:
        news.update(dict.fromkeys(given))
    elif given:
        news.update({name: _filled(values[name], early.prompt) for name in given})
    elif text:
        news[text[0]] = _filled(_positive(values), early.prompt)
    elif early.prompt:
        raise SettingsError(
            f"early_prompt is {early.prompt!r}, but this pipeline takes its negative prompt only "
            f"as {', '.join(encoded)}; allowed: an empty early prompt, or "
            f"{', '.join(map(early_name, encoded))}"
        )
    return arguments.with_values(news)


def more_pictures(arguments: Arguments) -> Iterator[tuple[int, Arguments]]:
    """Ways to ask for one picture more: of how many there were, and the arguments for it."""
    values = arguments.by_name
    # Of these there may be one for each picture.
    news: dict[str, Any] = {
        name: None for name in ("latents", "generator") if values.get(name) is not None
    }
    for name in filter(_PICTURES.fullmatch, values):
        pictures = 1 if values[name] is None else values[name]
        yield pictures, arguments.with_values({**news, name: pictures + 1})
    # Some pipelines take no notice of that number.
    texts = {
        name: [value] * 2
        for name, value in values.items()
        if _ANY_TEXT.fullmatch(name) and isinstance(value, str)
    }
    yield 1, arguments.with_values({**news, **texts})


def _positive(values: dict[str, Any]) -> Any:
    """What tells whether prompts are given as one text or as a list of how many."""
    prompt = values.get("prompt")
    if prompt is not None:
        return prompt
    embeds = values.get("prompt_embeds")
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
