"""The first step of a pipeline call, made with a blank negative prompt and taken back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lazyneg.diffusers.blank import has_negative_text
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path, leaves, replaced
from lazyneg.diffusers.observe import (
    guiders,
    modules,
    observing,
    progress_bars,
    schedulers,
)


@dataclass
class RehearsedCall:
    """A denoiser call of the first step, with a blank negative prompt."""

    module: torch.nn.Module
    given: dict[Path, Any]
    output: Any
    drew: bool
    """Whether making the output drew random numbers."""


@dataclass
class Rehearsal:
    """What the first step of the blank call did."""

    calls: list[RehearsedCall]
    reusable: bool
    """Whether the outputs are what the same calls would give again."""
    setup: set[int]
    """Ids of the modules called before the denoising loop: encoders."""
    progress_bar: bool
    """Whether a progress bar marks the begin of the loop; else it is setting the timesteps."""
    announces_steps: bool
    """Whether the pipeline says how many iterations its loop has."""


class Stop(BaseException):
    """Ends the rehearsal. Not an ``Exception``, lest a pipeline should handle it."""


@dataclass
class _Rehearsing:
    """Observer of the blank call."""

    calls: list[RehearsedCall] = field(default_factory=list)
    scheduled_at: int = 0
    looping_at: int | None = None

    def scheduled(self, scheduler: Any) -> None:
        self.scheduled_at = len(self.calls)

    def looping(self, owner: Any) -> None:
        self.looping_at = len(self.calls)

    def stepped(self, scheduler: Any) -> None:
        raise Stop

    def called(
        self, module: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        generators = _global_generators()
        before = [generator.get_state() for generator in generators]
        # Before the call: models may empty lists that they are given.
        given = dict(leaves((args, kwargs)))
        output = forward(*args, **kwargs)
        drew = not all(map(torch.equal, before, (made.get_state() for made in generators)))
        # A copy, as pipelines and models may also change what they get from a model.
        kept = {
            path: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
            for path, leaf in leaves(output)
        }
        self.calls.append(RehearsedCall(module, given, replaced(output, kept), drew))
        return output


def _global_generators() -> list[torch.Generator]:
    """PyTorch's generators that are drawn from where none is given."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    if torch.backends.mps.is_available():
        generators.append(torch.mps._get_default_mps_generator())
    return generators


def _stateful(module: torch.nn.Module) -> bool:
    registries = (vars(part).get("_diffusers_hook") for part in module.modules())
    return any(
        getattr(hook, "_is_stateful", False)
        for registry in registries
        if registry is not None
        for hook in registry.hooks.values()
    )


def rehearse(
    pipe: Any, call: Callable[..., Any], arguments: dict[str, Any], blank: dict[str, Any]
) -> Rehearsal:
    """Makes the blank call up to its first scheduler step, and leaves no trace of it."""
    observer = _Rehearsing()
    with untouched(pipe, blank), observing(observer):
        # Left there by an earlier call.
        vars(pipe).pop("_num_timesteps", None)
        try:
            call(pipe, **blank)
        except Stop:
            announces_steps = "_num_timesteps" in vars(pipe)
        except Exception as error:
            if has_negative_text(arguments):
                # The user's call would fail in the same way.
                raise
            raise DelayError(
                "the negative prompt is given as embeddings, so the pipeline had to encode an "
                f"empty prompt by itself, and that failed: {error!r}"
            ) from error
        else:
            raise DelayError(
                f"{type(pipe).__name__} made no step with a scheduler of its own: its negative "
                "prompt cannot be delayed"
            )
    begin = observer.scheduled_at if observer.looping_at is None else observer.looping_at
    calls = observer.calls[begin:]
    if not calls:
        raise DelayError(
            f"{type(pipe).__name__} called no PyTorch model before its first scheduler step: its "
            "negative prompt cannot be delayed"
        )
    denoisers = {id(made.module): made.module for made in calls}
    reusable = not any(made.drew for made in calls) and not any(map(_stateful, denoisers.values()))
    setup = {id(made.module) for made in observer.calls[:begin]} - denoisers.keys()
    return Rehearsal(calls, reusable, setup, observer.looping_at is not None, announces_steps)


@contextlib.contextmanager
def untouched(pipe: Any, arguments: dict[str, Any]) -> Iterator[None]:
    """Puts back what a pipeline call that is stopped midway changes; shows no progress."""
    shown = progress_bars(pipe)
    # Schedulers and guiders; models are not changed by being called.
    changing = [
        pipe,
        *schedulers(pipe),
        *guiders(pipe),
        *(owner for owner in shown if owner is not pipe),
    ]
    attributes = [dict(vars(part)) for part in changing]
    for owner in shown:
        vars(owner)["_progress_bar_config"] = {"disable": True}
    with_processors: list[Any] = [
        part for part in modules(pipe) if hasattr(part, "attn_processors")
    ]
    with_cache: list[Any] = [
        part for part in modules(pipe) if hasattr(part, "_reset_stateful_cache")
    ]
    processors = [(part, dict(part.attn_processors)) for part in with_processors]
    generators = _global_generators()
    generators += [leaf for _, leaf in leaves(arguments) if isinstance(leaf, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for part, before in processors:
            now = part.attn_processors
            if any(now[name] is not processor for name, processor in before.items()):
                part.set_attn_processor(before)
        for part, values in zip(changing, attributes, strict=True):
            vars(part).clear()
            vars(part).update(values)
        for module in with_cache:
            module._reset_stateful_cache()
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()
