"""One pipeline call with the negative prompt delayed, for any pipeline.

The pipeline's own code runs twice: first with the negative prompt blanked and only up to the
first step of the scheduler, then as the user asked. What the denoiser receives differently in the
two is the negative prompt in the form that this pipeline gives it, whatever that is; while the
negative prompt is not to act, the denoiser gets the blank form instead.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from lazyneg.diffusers.blank import blanked, bound, has_negative, has_negative_text, negative_names
from lazyneg.diffusers.leaves import Path, leaves, replaced, same
from lazyneg.diffusers.observe import (
    guiders,
    modules,
    observing,
    progress_bars,
    schedulers,
    watched,
)
from lazyneg.settings import Settings

logger = logging.getLogger("lazyneg")

_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


class DelayError(RuntimeError):
    """This pipeline call cannot be made with its negative prompt delayed exactly."""


def delayed_call(
    pipe: Any,
    call: Callable[..., Any],
    settings: Settings,
    early_prompt: str | None,
    args: Any,
    kwargs: Any,
) -> Any:
    """Calls a pipeline with the negative prompt acting only within the settings' window.

    Args:
        pipe: The pipeline.
        call: Its class's own ``__call__``.
        settings: When the negative prompt acts.
        early_prompt: Negative prompt of the other steps; ``None`` passes none at all.
        args: The user's positional arguments.
        kwargs: The user's named arguments.

    Returns:
        What the pipeline returns.

    Raises:
        DelayError: If the call cannot be delayed exactly.
    """
    if not settings.delays():
        return call(pipe, *args, **kwargs)
    arguments = bound(call, (pipe, *args), kwargs)
    del arguments[next(iter(arguments))]
    if (state := arguments.get("state")) is not None:
        # A modular pipeline goes on from where another ended.
        text, encoded = negative_names(state.values)
        for name in (*text, *encoded):
            arguments.setdefault(name, state.values[name])
    if not has_negative(arguments) and not early_prompt:
        _say_once(pipe, logging.INFO, "no negative prompt is given: there is nothing to delay")
        return call(pipe, *args, **kwargs)
    if _guidance_off(pipe, arguments):
        _say_once(
            pipe,
            logging.WARNING,
            "guidance is off, the negative prompt has no effect: there is nothing to delay",
        )
        return call(pipe, *args, **kwargs)
    blank = blanked(arguments, early_prompt)
    with watched(pipe):
        rehearsal = _rehearse(pipe, call, arguments, blank)
        run = _Run(pipe, settings, rehearsal)
        with observing(run):
            return call(pipe, *args, **kwargs)


def _say_once(pipe: Any, level: int, message: str) -> None:
    said = _said.setdefault(pipe, set())
    if message not in said:
        said.add(message)
        logger.log(level, message)


def _guidance_off(pipe: Any, arguments: dict[str, Any]) -> bool:
    """Whether the pipeline itself would say that it does not use the negative prompt."""
    true_cfg_scale = arguments.get("true_cfg_scale")
    if isinstance(true_cfg_scale, (int, float)) and true_cfg_scale <= 1:
        return True
    if not isinstance(getattr(type(pipe), "do_classifier_free_guidance", None), property):
        return False
    # Pipelines keep arguments as attributes of the same name with an underscore.
    stand_in = copy.copy(pipe)
    vars(stand_in).update({f"_{name}": value for name, value in arguments.items()})
    try:
        return stand_in.do_classifier_free_guidance is False
    except Exception:
        # It depends on something that only the call sets: then the call itself will show.
        return False


@dataclass
class _Call:
    """A denoiser call of the first step, with a blank negative prompt."""

    module: torch.nn.Module
    given: dict[Path, Any]
    output: Any
    drew: bool
    """Whether making the output drew random numbers."""


@dataclass
class _Rehearsal:
    """What the first step of the blank call did."""

    calls: list[_Call]
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

    calls: list[_Call] = field(default_factory=list)
    scheduled_at: int = 0
    looping_at: int | None = None

    def scheduled(self) -> None:
        self.scheduled_at = len(self.calls)

    def looping(self) -> None:
        self.looping_at = len(self.calls)

    def stepped(self) -> None:
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
        self.calls.append(_Call(module, given, replaced(output, kept), drew))
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


def _rehearse(
    pipe: Any, call: Callable[..., Any], arguments: dict[str, Any], blank: dict[str, Any]
) -> _Rehearsal:
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
    return _Rehearsal(calls, reusable, setup, observer.looping_at is not None, announces_steps)


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


@dataclass
class _Known:
    """What a denoiser call of the first step got of the negative prompt, where calls differ."""

    given: dict[Path, Any]
    blank: dict[Path, Any]

    def blank_of(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        """The blank form of ``got`` if that is what this call was given, else ``None``."""
        if all(path in self.given and same(leaf, self.given[path]) for path, leaf in got.items()):
            return {path: self.blank[path] for path in got}
        return self._rows_of(got)

    def _rows_of(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        """As :meth:`blank_of` where ``got`` has some of the rows of the batch only.

        So it is when a callback ends guidance midway.
        """
        if got.keys() - self.given.keys():
            return None
        leafs: list[tuple[Any, Any, Any]] = [
            (leaf, self.given[path], self.blank[path]) for path, leaf in got.items()
        ]
        if not all(
            isinstance(leaf, torch.Tensor) and leaf.ndim for three in leafs for leaf in three
        ):
            return None
        count, known_count = len(leafs[0][0]), len(leafs[0][1])
        if not all(
            (len(leaf), len(given), len(blank)) == (count, known_count, known_count)
            for leaf, given, blank in leafs
        ):
            return None
        rows = []
        for row in range(count):
            alike = [
                index
                for index in range(known_count)
                if all(same(leaf[row], given[index]) for leaf, given, _ in leafs)
            ]
            # Equal rows must have the same blank form, or there is no telling which one it is.
            if not alike or not all(
                same(blank[index], blank[alike[0]]) for index in alike for _, _, blank in leafs
            ):
                return None
            rows.append(alike[0])
        return {path: self.blank[path][rows] for path in got}


class _Run:
    """Observer of the user's call."""

    def __init__(self, pipe: Any, settings: Settings, rehearsal: _Rehearsal) -> None:
        self.pipe = pipe
        self.settings = settings
        self.rehearsal = rehearsal
        self.in_loop = False
        self.first_step = True
        self.step = 0
        self.calls = 0
        """Calls of denoisers so far in this step."""
        self.stepping = False
        """Whether a scheduler stepped since the last call."""
        self.early: bool | None = None
        """Whether the blank negative prompt acts in this step; ``None`` while not known."""
        self.known: list[_Known] = []
        self.paths: set[Path] = set()
        """Where in the arguments of any denoiser the user's call and the blank one differ."""

    def scheduled(self) -> None:
        self.step = self.calls = 0
        self.stepping = False
        self.early = None
        self.in_loop = self.in_loop or not self.rehearsal.progress_bar

    def looping(self) -> None:
        self.in_loop = True

    def stepped(self) -> None:
        self.stepping = self.in_loop
        if self.first_step and self.in_loop:
            self.first_step = False
            self._conclude()

    def called(
        self, module: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if not self.in_loop or id(module) in self.rehearsal.setup:
            return forward(*args, **kwargs)
        if self.stepping:
            # Several schedulers may step one after the other: that is one step.
            self.step += 1
            self.calls = 0
            self.stepping = False
            self.early = None
        if self.early is None:
            self.early = not self.settings.window(self._steps()).active(self.step)
        call = self.calls
        self.calls += 1
        if self.first_step:
            return self._first(call, module, forward, args, kwargs)
        if not self.early:
            return forward(*args, **kwargs)
        if not self.paths:
            if call >= len(self.known):
                raise DelayError(
                    f"step {self.step} calls the denoiser more often than step 0, where the "
                    "negative prompt made no difference: guidance that begins later than the "
                    "first step cannot be delayed"
                )
            return forward(*args, **kwargs)
        args, kwargs = self._blanked(call, module, args, kwargs)
        return forward(*args, **kwargs)

    def _first(
        self,
        call: int,
        module: torch.nn.Module,
        forward: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """A call of the first step: seen in the rehearsal, with a blank negative prompt."""
        rehearsed = self.rehearsal.calls
        if call >= len(rehearsed) or rehearsed[call].module is not module:
            raise self._calls_differ()
        blank_call = rehearsed[call]
        given = dict(leaves((args, kwargs)))
        blank = blank_call.given
        if given.keys() != blank.keys():
            raise self._calls_differ()
        changed = {path for path, leaf in given.items() if not same(leaf, blank[path])}
        self.paths |= changed
        self.known.append(_Known(given, blank))
        if not self.early:
            return forward(*args, **kwargs)
        if self.rehearsal.reusable:
            return blank_call.output
        args, kwargs = replaced((args, kwargs), {path: blank[path] for path in changed})
        return forward(*args, **kwargs)

    def _calls_differ(self) -> DelayError:
        return DelayError(
            f"{type(self.pipe).__name__} calls its denoiser in another way with an empty negative "
            "prompt: the negative prompt cannot be delayed"
        )

    def _conclude(self) -> None:
        """Ends the first step: from here on only what differs is of interest."""
        if len(self.known) != len(self.rehearsal.calls):
            raise self._calls_differ()
        self.rehearsal.calls.clear()
        for known in self.known:
            for leafs in (known.given, known.blank):
                for path in leafs.keys() - self.paths:
                    del leafs[path]
        if not self.paths:
            _say_once(
                self.pipe,
                logging.WARNING,
                "the negative prompt makes no difference to the denoiser, as if guidance were "
                "off or the prompt empty: there is nothing to delay",
            )

    def _blanked(
        self, call: int, module: torch.nn.Module, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        """The arguments of a call with a blank negative prompt."""
        got = {path: leaf for path, leaf in leaves((args, kwargs)) if path in self.paths}
        if not got:
            return args, kwargs
        # The call in the same place of the first step tells calls with equal texts apart.
        same_place = (known.blank_of(got) for known in self.known[call : call + 1])
        blank = next(same_place, None) or self._blank_anywhere(got)
        if blank is None:
            raise DelayError(
                f"step {self.step} gives {type(module).__name__} a text that was not there in "
                "step 0, from the pipeline or a callback: the negative prompt cannot be delayed"
            )
        news = {path: leaf for path, leaf in blank.items() if leaf is not got[path]}
        args, kwargs = replaced((args, kwargs), news)
        return args, kwargs

    def _blank_anywhere(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        found = [blank for known in self.known if (blank := known.blank_of(got)) is not None]
        agree = all(same(blank[path], found[0][path]) for blank in found for path in got)
        return found[0] if found and agree else None

    def _steps(self) -> int:
        """Iterations of the denoising loop."""
        if self.rehearsal.announces_steps:
            announced: int = vars(self.pipe)["_num_timesteps"]
            return announced
        scheduler = schedulers(self.pipe)[0]
        return len(scheduler.timesteps) - (getattr(scheduler, "begin_index", None) or 0)
