"""The first step of a pipeline call, made aside and without the denoiser.

A denoiser may keep anything from call to call: in attention processors, in hooks, in caches. So it
is never called here. Only the code of the pipeline runs, on copies of what it changes, up to the
denoiser call that is asked for; earlier ones give what the true run's gave.
"""

from __future__ import annotations

import contextlib
import copy
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict

from lazyneg.diffusers.leaves import Path, leaves, plain, replaced, same
from lazyneg.diffusers.standins import (
    Loop,
    is_scheduler,
    modules,
    outside,
    pipeline_stand_in,
)


class Randomness:
    """States of the generators that are drawn from where none is given."""

    def __init__(self) -> None:
        self.generators = [torch.default_generator]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self.generators += torch.cuda.default_generators
        if torch.backends.mps.is_available():
            self.generators.append(torch.mps._get_default_mps_generator())
        self.states = [generator.get_state() for generator in self.generators]
        self.others = random.getstate(), np.random.get_state()

    def same(self, other: Randomness) -> bool:
        """Whether nothing was drawn between the two."""
        (own, (_, keys, *rest)), (others, (_, other_keys, *other_rest)) = self.others, other.others
        return (
            all(map(torch.equal, self.states, other.states))
            and own == others
            and rest == other_rest
            and np.array_equal(keys, other_keys)
        )

    def restore(self) -> None:
        """Puts the generators back to these states."""
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.set_state(state)
        random.setstate(self.others[0])
        np.random.set_state(self.others[1])


def fresh(value: Any) -> Any:
    """A copy of arguments or outputs, whose tensors, generators and lists may be changed."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, torch.Generator):
        return torch.Generator(value.device).set_state(value.get_state())
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return replaced(value, {(key,): fresh(item) for key, item in items})
    return value


class Made:
    """A model call that was made: what is needed to give its output once more."""

    def __init__(self, module: torch.nn.Module, output: Any) -> None:
        self.module = module
        self.randomness = Randomness()
        self.repeatable = True
        try:
            self.output = _duplicate(output)
        except Exception:
            self.output = fresh(output)
            self.repeatable = False

    def again(self) -> Any:
        """The output, and the random numbers drawn."""
        self.randomness.restore()
        return self.copied()

    def copied(self) -> Any:
        """The output."""
        return _duplicate(self.output) if self.repeatable else fresh(self.output)


def _duplicate(output: Any) -> Any:
    """As :func:`fresh`, but also of objects such as the cache of a language model."""
    objects = {path: copy.deepcopy(leaf) for path, leaf in leaves(output) if not is_value(leaf)}
    return replaced(fresh(output), objects) if objects else fresh(output)


def is_value(leaf: Any) -> bool:
    """Whether a leaf can be compared with others."""
    return plain(leaf) or isinstance(leaf, torch.Tensor)


class SetUp(Made):
    """A call that the true run made before its loop.

    Args:
        module: The model.
        given: Its arguments, copied before it was called.
        before: Randomness before it was called.
        output: What it gave.
    """

    def __init__(
        self, module: torch.nn.Module, given: dict[Path, Any], before: Randomness, output: Any
    ) -> None:
        super().__init__(module, output)
        self.given = given
        self.repeats = (
            self.repeatable and all(map(is_value, given.values())) and self.randomness.same(before)
        )

    def answers(self, module: torch.nn.Module, given: dict[Path, Any]) -> bool:
        """Whether a call with these arguments would give the same output and draw nothing."""
        return (
            self.repeats
            and module is self.module
            and given.keys() == self.given.keys()
            and all(same(leaf, self.given[path]) for path, leaf in given.items())
        )


@dataclass
class DenoiserCall:
    """What a denoiser is called with, by leaves."""

    module: torch.nn.Module
    given: dict[Path, Any]


class Stop(BaseException):
    """Ends a rehearsal. Not an ``Exception``, lest a pipeline should handle it."""

    def __init__(self, observer: Any, found: Any) -> None:
        self.observer = observer
        """Whose rehearsal it is."""
        self.found = found


@dataclass
class _Rehearsing:
    """Observer of a call that is made up to one of the first step's denoiser calls."""

    setup: list[Any]
    """Calls of models before the loop, known ones given once more and new ones added."""
    others: Sequence[SetUp]
    """Calls of the true run, which give what they gave where they are made alike."""
    made: Sequence[Made]
    """The denoiser calls before the one that is asked for."""
    loops: list[Loop] = field(default_factory=list)
    progress_bar: bool = False
    setups: int = 0
    calls: int = 0
    touched: dict[int, _Attributes] = field(default_factory=dict)
    """Models that may have been changed, by their ids."""

    def touching(self, module: torch.nn.Module) -> None:
        if id(module) not in self.touched:
            self.touched[id(module)] = _Attributes(module)

    def looping(self) -> None:
        self.progress_bar = True

    def scheduled(self, scheduler: Any) -> None:
        pass

    def iterating(self) -> None:
        if self.calls and self.loops[0].index:
            raise Stop(self, None)

    def iterated(self) -> None:
        pass

    def stepped(self) -> None:
        raise Stop(self, None)

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if self.loops or self.progress_bar:
            self.calls += 1
            if self.calls > len(self.made):
                raise Stop(self, DenoiserCall(module, dict(leaves((args, kwargs)))))
            known = self.made[self.calls - 1]
            if known.module is not module:
                raise Stop(self, None)
            return known.again()
        self.setups += 1
        if self.setups <= len(self.setup):
            known = self.setup[self.setups - 1]
            if known.module is module and known.repeatable:
                return known.again()
            return module(*args, **kwargs)
        given = dict(leaves((args, kwargs)))
        alike = next((made for made in self.others if made.answers(module, given)), None)
        output = module(*args, **kwargs) if alike is None else alike.copied()
        self.setup.append(Made(module, output))
        return output

    def put_back(self) -> None:
        """Puts back what was set or hung on models for calls that are not made.

        Models that are called may change what they like, as in any call, and other threads may be
        calling them. For the same reason only what changed is written. Weights stay where they
        are, as offloading moves them.
        """
        for made in self.setup:
            self.touched.pop(id(made.module), None)
        for attributes in self.touched.values():
            attributes.put_back()

    def in_context(self, context: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # The model is not called, and leaving its context would end that of the true run.
        return contextlib.nullcontext()


class Beginning:
    """How things are when a call begins, for rehearsals at any time during the call."""

    def __init__(self, pipe: Any, plain_class: Any) -> None:
        self.pipe = pipe
        self.plain_class = plain_class
        self.randomness = Randomness()
        self.devices: list[Any] = []
        """What the pipeline's device is, once the true run has asked."""
        self.attributes = self._copied(vars(pipe))
        # Left there by an earlier call.
        self.attributes.pop("_num_timesteps", None)

    def _copied(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """``attributes`` with copies of what a call changes: schedulers and guiders.

        They count steps. Models are not changed by being called, or it is put back.
        """
        return {
            name: self._copy(part)
            if is_scheduler(part) or hasattr(type(part), "prepare_inputs")
            else part
            for name, part in attributes.items()
        }

    def _copy(self, part: Any) -> Any:
        memo: dict[int, Any] = {id(module): module for module in modules(self.pipe)}
        # Without asking the part how: what wraps another often cannot tell.
        made = object.__new__(type(part))
        vars(made).update(vars(part))
        for name, value in vars(part).items():
            if type(value) is torch.Tensor and not value.requires_grad:
                # Most of a scheduler is tables, which are copied in the long way much slower.
                if id(value) not in memo:
                    memo[id(value)] = value.clone()
                vars(made)[name] = memo[id(value)]
            elif is_scheduler(value):
                vars(made)[name] = self._copy(value)
            # A configuration is exchanged, never changed, and takes long to copy.
            elif not plain(value) and not isinstance(value, FrozenDict):
                # What cannot be copied, such as a lock, is there to be shared.
                with contextlib.suppress(TypeError):
                    vars(made)[name] = copy.deepcopy(value, memo)
        return made

    def aside(self, observer: Any) -> Any:
        """A stand-in of the pipeline that keeps what it changes to itself; shows no progress."""
        attributes = self._copied(self.attributes)
        attributes["_progress_bar_config"] = {"disable": True}
        if (blocks := attributes.get("_blocks")) is not None:
            attributes["_blocks"] = _quiet(blocks)
        return pipeline_stand_in(self.pipe, self.plain_class, observer, self.devices, attributes)


def _quiet(blocks: Any) -> Any:
    """Copy of a modular pipeline's blocks that shows no progress."""
    quiet = copy.copy(blocks)
    quiet._progress_bar_config = {"disable": True}
    if parts := getattr(blocks, "sub_blocks", None):
        quiet.sub_blocks = type(parts)((name, _quiet(part)) for name, part in parts.items())
    return quiet


class Rehearsal:
    """A call that can be made up to any denoiser call of its first step, and leaves no trace.

    Args:
        beginning: How things were when the user's call began.
        call: The pipeline's own ``__call__``.
        arguments: Positional and named arguments.
        setup: What the same call was seen to make before its loop, if it was.
        others: What another call was seen to make before its loop.
    """

    def __init__(
        self,
        beginning: Beginning,
        call: Callable[..., Any],
        arguments: tuple[Sequence[Any], dict[str, Any]],
        setup: list[Any] | None = None,
        others: Sequence[SetUp] = (),
    ) -> None:
        self.beginning = beginning
        self.call = call
        self.arguments = fresh(arguments)
        self.setup = [] if setup is None else setup
        self.others = others
        self.announces_steps = False
        """Whether the pipeline says how many iterations its loop has."""

    def next(self, made: Sequence[Made]) -> DenoiserCall | None:
        """The denoiser call that follows on those ``made``, ``None`` if the step has no more."""
        observer = _Rehearsing(self.setup, self.others, made)
        stand_in = self.beginning.aside(observer)
        args, kwargs = call_arguments(fresh(self.arguments))
        found: DenoiserCall | None = None
        randomness = Randomness()
        self.beginning.randomness.restore()
        try:
            self.call(stand_in, *args, **kwargs)
        except Stop as stop:
            if stop.observer is not observer:
                raise
            found = stop.found
        finally:
            randomness.restore()
            observer.put_back()
        self.announces_steps = "_num_timesteps" in vars(stand_in)
        return found


def call_arguments(arguments: tuple[Sequence[Any], dict[str, Any]]) -> Any:
    """Arguments of a call on a stand-in: the user's functions get the pipeline itself."""
    found = {path: outside(leaf) for path, leaf in leaves(arguments) if callable(leaf)}
    return replaced(arguments, found) if found else arguments


_TABLES = [
    name
    for name, value in vars(torch.nn.Module()).items()
    if isinstance(value, dict) and name not in ("_parameters", "_buffers")
]
"""Where a module keeps its hooks and submodules."""


class _Attributes:
    """Attributes, hooks and submodules of a module and of all below it."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.filled: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self.empty: list[dict[Any, Any]] = []
        # As ``modules()`` does, which makes the names of all on its way.
        todo, seen = [module], set()
        while todo:
            attributes = vars(todo.pop())
            if id(attributes) in seen:
                continue
            seen.add(id(attributes))
            todo += filter(None, attributes["_modules"].values())
            self.filled.append((attributes, attributes.copy()))
            for name in _TABLES:
                table = attributes[name]
                if table:
                    self.filled.append((table, table.copy()))
                else:
                    self.empty.append(table)

    def put_back(self) -> None:
        for now, before in self.filled:
            _put_back(now, before)
        for table in filter(None, self.empty):
            table.clear()


def _put_back(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    if len(now) == len(before) and all(map(operator.is_, now.values(), before.values())):
        return
    for name in now.keys() - before.keys():
        del now[name]
    for name, value in before.items():
        if now.get(name, now) is not value:
            now[name] = value
