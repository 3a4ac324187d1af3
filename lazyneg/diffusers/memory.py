"""What the last call with a blank negative prompt came to, where the next comes to the same.

People make many pictures of one prompt. What an empty negative prompt is encoded to, and what the
denoiser gets of it, need then not be found out again.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lazyneg.diffusers.leaves import Path, leaves, plain, same
from lazyneg.diffusers.rehearsal import DenoiserCall, SetUp, fresh, is_value

STATE = "_lazyneg"
"""Attribute of a pipeline with what is applied to it."""

_remembered: WeakKeyDictionary[Any, _Remembered] = WeakKeyDictionary()


@dataclass
class _Encoded:
    """A model call before the loop, by all that it is known again by.

    The model is not kept alive: people free encoders to make room.
    """

    module: weakref.ref[torch.nn.Module]
    given: dict[Path, Any]
    output: dict[Path, Any]

    @classmethod
    def of(cls, made: SetUp) -> _Encoded:
        output = {path: leaf for path, leaf in leaves(made.output) if is_value(leaf)}
        return cls(weakref.ref(made.module), made.given, output)

    def agrees(self, made: SetUp) -> bool:
        """Whether another call was made alike and had the same outcome."""
        other = self.of(made)
        return (
            made.repeats
            and self.module() is made.module
            and _all_same(self.given, other.given)
            and _all_same(self.output, other.output)
        )


@dataclass
class _Remembered:
    """The first denoiser call of a pipeline call, and all that it can depend on."""

    request: dict[Path, Any]
    parts: dict[Path, Any]
    setup: Sequence[_Encoded]
    module: weakref.ref[torch.nn.Module]
    paths: set[Path]
    given: dict[Path, Any]
    """Where it differs from the one with a blank negative prompt."""
    blank: dict[Path, Any]
    """The same of that."""


class Memory:
    """What is remembered of a pipeline, for one call.

    It is used only if this call has the arguments of the remembered one but for random numbers, on
    a pipeline with the same parts and values, and as far as it has come has called the same
    encoders with the same outcome, by which each encoder is known not to have changed since. So
    nothing is remembered of calls where the blank negative prompt is encoded by an encoder that
    does nothing else in the call.

    Args:
        pipe: The pipeline.
        arguments: Those of the call as given, and with a blank negative prompt.
    """

    def __init__(self, pipe: Any, arguments: Any) -> None:
        self.pipe = pipe
        self.request = _values(arguments)

    def first_call(
        self, module: torch.nn.Module, given: Mapping[Path, Any], setup: Sequence[SetUp]
    ) -> DenoiserCall | None:
        """The first denoiser call with a blank negative prompt, ``None`` if it is not known.

        Args:
            module: The denoiser.
            given: What it gets in this call.
            setup: Calls of models before it.
        """
        known = _remembered.get(self.pipe)
        if (
            known is None
            or self.request is None
            or known.module() is not module
            or known.paths != given.keys()
            or not _all_same(known.given, {path: given[path] for path in known.given})
            or not _all_same(known.request, self.request)
            or not _all_same(known.parts, _parts(self.pipe))
            or len(known.setup) != len(setup)
            or not all(before.agrees(made) for before, made in zip(known.setup, setup))
        ):
            return None
        return DenoiserCall(module, {**given, **fresh(known.blank)})

    def keep(
        self,
        call: DenoiserCall,
        given: Mapping[Path, Any],
        setup: Sequence[SetUp],
        encoders: set[int],
    ) -> None:
        """Remembers the first denoiser call with a blank negative prompt.

        Args:
            call: That call.
            given: What the denoiser gets of the negative prompt as it was given.
            setup: Calls of models before it.
            encoders: Ids of the models called with the blank negative prompt.
        """
        differing = {path for path, leaf in given.items() if not same(leaf, call.given[path])}
        _remembered.pop(self.pipe, None)
        if (
            self.request is not None
            and encoders <= {id(made.module) for made in setup}
            and all(made.repeats for made in setup)
            and all(isinstance(call.given[path], torch.Tensor) for path in differing)
        ):
            _remembered[self.pipe] = _Remembered(
                self.request,
                _parts(self.pipe),
                [*map(_Encoded.of, setup)],
                weakref.ref(call.module),
                {*given},
                fresh({path: given[path] for path in differing}),
                fresh({path: call.given[path] for path in differing}),
            )


def forget(pipe: Any) -> None:
    """Forgets what is remembered of a pipeline."""
    _remembered.pop(pipe, None)


def _values(value: Any) -> dict[Path, Any] | None:
    """All leaves, by which it is known again; ``None`` if there is one that says nothing."""
    found: dict[Path, Any] = {}
    for path, leaf in leaves(value):
        if plain(leaf):
            found[path] = leaf
        elif isinstance(leaf, torch.Tensor):
            found[path] = leaf.clone()
        elif isinstance(leaf, torch.Generator):
            found[path] = None
        else:
            return None
    return found


def _parts(pipe: Any) -> dict[Path, Any]:
    """The values and parts of a pipeline. None of them keeps it alive."""
    parts = {name: part for name, part in vars(pipe).items() if name != STATE}
    return {path: _known_again(leaf) for path, leaf in leaves(parts)}


def _known_again(part: Any) -> Any:
    if plain(part):
        return part
    if isinstance(part, torch.Tensor):
        return part.clone()
    try:
        return weakref.ref(part)
    except TypeError:
        # Of a kind that cannot be known again: a reference to nothing that is left.
        return weakref.ref(set())


def _all_same(one: Mapping[Path, Any], other: Mapping[Path, Any]) -> bool:
    return one.keys() == other.keys() and all(
        _same_part(leaf, other[path]) if isinstance(leaf, weakref.ref) else same(leaf, other[path])
        for path, leaf in one.items()
    )


def _same_part(one: Any, other: Any) -> bool:
    return isinstance(other, weakref.ref) and one() is not None and one() is other()
