"""Watching one pipeline call from outside: its module calls, its steps, its progress bar."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import torch


class Observer(Protocol):
    """What is told of a pipeline call."""

    def scheduled(self) -> None:
        """A scheduler was given its timesteps."""

    def looping(self) -> None:
        """The pipeline opened a progress bar."""

    def stepped(self) -> None:
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


@functools.cache
def _watched(scheduler: type[Any]) -> type[Any]:
    """Subclass of a scheduler that tells the observer.

    A class and not a patched instance, because some pipelines step deep copies of their
    scheduler, and a copied patch would step the original.
    """

    @functools.wraps(scheduler.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if observer := _observer.get():
            observer.stepped()
        return scheduler.step(self, *args, **kwargs)

    @functools.wraps(scheduler.set_timesteps)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        if observer := _observer.get():
            observer.scheduled()
        return scheduler.set_timesteps(self, *args, **kwargs)

    names = {name: getattr(scheduler, name) for name in ("__module__", "__qualname__", "__doc__")}
    methods = {"step": step, "set_timesteps": set_timesteps}
    return type(scheduler.__name__, (scheduler,), {**names, **methods})


def schedulers(pipe: Any) -> list[Any]:
    """The pipeline's schedulers."""
    return [
        part
        for part in pipe.components.values()
        if hasattr(type(part), "step") and hasattr(type(part), "set_timesteps")
    ]


def modules(pipe: Any) -> list[torch.nn.Module]:
    """The pipeline's models, each once."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return list({id(part): part for part in parts}.values())


@contextlib.contextmanager
def watched(pipe: Any) -> Iterator[None]:
    """Makes what ``pipe`` does visible to :func:`observing`; undone at the end."""
    with contextlib.ExitStack() as stack:
        for module in modules(pipe):
            stack.enter_context(_seam(module))
        for scheduler in schedulers(pipe):
            plain = type(scheduler)
            scheduler.__class__ = _watched(plain)
            stack.callback(setattr, scheduler, "__class__", plain)
        if hasattr(pipe, "progress_bar"):
            stack.enter_context(_watched_progress_bar(pipe))
        yield


@contextlib.contextmanager
def _watched_progress_bar(pipe: Any) -> Iterator[None]:
    progress_bar = pipe.progress_bar
    own = vars(pipe).get("progress_bar")

    @functools.wraps(progress_bar)
    def watched_progress_bar(*args: Any, **kwargs: Any) -> Any:
        if observer := _observer.get():
            observer.looping()
        return progress_bar(*args, **kwargs)

    vars(pipe)["progress_bar"] = watched_progress_bar
    try:
        yield
    finally:
        del vars(pipe)["progress_bar"]
        if own is not None:
            vars(pipe)["progress_bar"] = own


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Tells ``observer`` of the watched pipeline calls made inside."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
