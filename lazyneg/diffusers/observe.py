"""Watching one pipeline call from outside: its module calls, its steps, its progress bar."""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import torch


class Observer(Protocol):
    """What is told of a pipeline call."""

    def scheduled(self, scheduler: Any) -> None:
        """A scheduler is about to be given its timesteps."""

    def looping(self, owner: Any) -> None:
        """A pipeline, or a block of one, opens a progress bar."""

    def stepped(self, scheduler: Any) -> None:
        """A scheduler is about to step."""

    def called(
        self, module: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """A component is called; returns what the pipeline gets from it."""


_observer: ContextVar[Observer | None] = ContextVar("lazyneg_observer", default=None)
_seams = threading.Lock()


class _Seam:
    """Stands in for a module's call while pipelines that use the module are watched.

    ``_compiled_call_impl`` is what ``Module.__call__`` runs if there is one. It lies outside of
    everything that offloading (patched ``forward``), hooks and ``torch.compile`` do to a module.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.compiled = vars(module).get("_compiled_call_impl")
        self.users = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.compiled or self.module._call_impl
        observer = _observer.get()
        if observer is None:
            return forward(*args, **kwargs)
        # What a component calls inside is its own business.
        token = _observer.set(None)
        try:
            return observer.called(self.module, forward, args, kwargs)
        finally:
            _observer.reset(token)


@contextlib.contextmanager
def _seam(module: torch.nn.Module) -> Iterator[None]:
    # Into the dict, as a compiled module hands attributes that are set on to the one it wraps.
    attributes = vars(module)
    with _seams:
        seam = attributes.get("_compiled_call_impl")
        if not isinstance(seam, _Seam):
            seam = attributes["_compiled_call_impl"] = _Seam(module)
        seam.users += 1
    try:
        yield
    finally:
        with _seams:
            seam.users -= 1
            if not seam.users:
                attributes.pop("_compiled_call_impl")
                if seam.compiled is not None:
                    attributes["_compiled_call_impl"] = seam.compiled


class _Method:
    """Stands in for a method of one object, and tells the observer of calls."""

    def __init__(self, owner: Any, method: Callable[..., Any], event: str) -> None:
        # Pipelines look at the signature of a scheduler's methods.
        functools.update_wrapper(self, method)
        self.owner = owner
        self.method = method
        self.event = event

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if observer := _observer.get():
            getattr(observer, self.event)(self.owner)
        return self.method(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Method:
        # Some pipelines step copies of their scheduler: the method must be the copy's own.
        owner, method = copy.deepcopy((self.owner, self.method), memo)
        return _Method(owner, method, self.event)


@contextlib.contextmanager
def _method(owner: Any, name: str, event: str) -> Iterator[None]:
    attributes = vars(owner)
    own = attributes.get(name)
    attributes[name] = _Method(owner, getattr(owner, name), event)
    try:
        yield
    finally:
        del attributes[name]
        if own is not None:
            attributes[name] = own


def parts(pipe: Any) -> list[Any]:
    """What the pipeline is made of, each once; more than its components, as some leave out."""
    held = [*pipe.components.values(), *vars(pipe).values()]
    return list({id(part): part for part in held if hasattr(part, "__dict__")}.values())


def schedulers(pipe: Any) -> list[Any]:
    """The pipeline's schedulers."""
    return [
        part
        for part in parts(pipe)
        if hasattr(type(part), "step") and hasattr(type(part), "set_timesteps")
    ]


def guiders(pipe: Any) -> list[Any]:
    """The pipeline's guiders, which count steps of their own."""
    return [part for part in parts(pipe) if hasattr(type(part), "prepare_inputs")]


def modules(pipe: Any) -> list[torch.nn.Module]:
    """The pipeline's models."""
    return [part for part in parts(pipe) if isinstance(part, torch.nn.Module)]


def progress_bars(pipe: Any) -> list[Any]:
    """What shows progress bars: the pipeline, or the blocks of a modular one."""
    found, todo = [], [pipe]
    while todo:
        owner = todo.pop()
        if hasattr(owner, "progress_bar"):
            found.append(owner)
        elif blocks := getattr(owner, "_blocks", None):
            todo.append(blocks)
        else:
            todo += getattr(owner, "sub_blocks", {}).values()
    return found


@contextlib.contextmanager
def watched(pipe: Any) -> Iterator[None]:
    """Makes what ``pipe`` does visible to :func:`observing`; undone at the end."""
    with contextlib.ExitStack() as stack:
        for module in modules(pipe):
            stack.enter_context(_seam(module))
        for scheduler in schedulers(pipe):
            stack.enter_context(_method(scheduler, "set_timesteps", "scheduled"))
            stack.enter_context(_method(scheduler, "step", "stepped"))
        for owner in progress_bars(pipe):
            stack.enter_context(_method(owner, "progress_bar", "looping"))
        yield


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Tells ``observer`` of the watched pipeline calls made inside."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
