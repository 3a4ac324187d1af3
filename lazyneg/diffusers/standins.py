"""Stand-ins for a pipeline and its parts, by which one call is watched.

The code of the call runs on a stand-in of its pipeline. Nothing is put into the pipeline itself,
its models or its schedulers, so that whatever else uses them, in a callback of the user's or in
another thread, is not seen, and nothing has to be taken out of them afterwards.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from lazyneg.diffusers.leaves import PLAIN


class Observer(Protocol):
    """What is told of a pipeline call."""

    @property
    def loops(self) -> list[Loop]:
        """The loops over timesteps that are under way, the outermost first."""

    def iterating(self) -> None:
        """A loop over timesteps goes on to the next one."""

    def iterated(self) -> None:
        """A loop over timesteps ends."""

    def looping(self) -> None:
        """The pipeline opens a progress bar."""

    def scheduled(self, scheduler: Any) -> None:
        """A scheduler is about to be given its timesteps."""

    def stepped(self) -> None:
        """A scheduler is about to step."""

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        """A model is called; returns what the pipeline gets from it."""

    def touching(self, module: torch.nn.Module) -> None:
        """Something is asked of a model by which it may be changed."""

    def in_context(self, context: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A context of a model's caches is entered for the calls to come; returns it."""


class Loop:
    """A loop over timesteps: which one it is at, and how many there are."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.index = 0


class _Timesteps(torch.Tensor):
    """Timesteps that tell the observer of loops over them, as slices of them do.

    Pipelines hand them on to the user and to schedulers, so they do not keep the observer alive.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    observer: Callable[[], Observer | None]

    def __iter__(self) -> Iterator[torch.Tensor]:
        timesteps = self.as_subclass(torch.Tensor).unbind()
        observer = self.observer()
        if observer is None:
            yield from timesteps
            return
        loop = Loop(len(timesteps))
        observer.loops.append(loop)
        try:
            for loop.index, timestep in enumerate(timesteps):
                observer.iterating()
                yield timestep
        finally:
            observer.loops.remove(loop)
            observer.iterated()

    def __len__(self) -> int:
        # Pipelines ask in each step, and a subclass's own way there is long.
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return _watched_timesteps(super().__getitem__(index), self.observer)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return _watched_timesteps(super().to(*args, **kwargs), self.observer)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        return copy.deepcopy(self.as_subclass(torch.Tensor), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def _watched_timesteps(timesteps: Any, observer: Callable[[], Observer | None]) -> Any:
    if not isinstance(timesteps, torch.Tensor) or timesteps.ndim != 1:
        return timesteps
    watched = timesteps.as_subclass(_Timesteps)
    watched.observer = observer
    return watched


class _StandIn:
    """Passes for a part of a pipeline; each class of parts has a subclass of this and of itself.

    It has no state, and its methods are the part's own: what a part does inside, or keeps of
    itself, knows nothing of stand-ins.
    """

    __slots__ = ("_lazyneg_observer", "_lazyneg_part")
    own: frozenset[str] = frozenset()
    """Attributes that are not the part's."""

    def __getattribute__(self, name: str) -> Any:
        if name in type(self).own:
            return object.__getattribute__(self, name)
        return getattr(_part_of(self), name)

    def __getattr__(self, name: str) -> Any:
        # The part has none of this name; what its class does then is to be done with the part.
        return getattr(_part_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_part_of(self), name, original(value))

    def __delattr__(self, name: str) -> None:
        delattr(_part_of(self), name)


_part_of = vars(_StandIn)["_lazyneg_part"].__get__
_observer_of = vars(_StandIn)["_lazyneg_observer"].__get__


def original(value: Any) -> Any:
    """What ``value`` stands in for, if it is a stand-in; else ``value``."""
    # Not ``isinstance``, which also asks the part that is stood in for.
    kind = type(value)
    if issubclass(kind, _Timesteps):
        return value.as_subclass(torch.Tensor)
    return _part_of(value) if issubclass(kind, _StandIn) else value


class _ModuleStandIn(_StandIn):
    __slots__ = ()
    own = frozenset(["cache_context"])

    @property
    def cache_context(self) -> Any:
        return functools.partial(_observer_of(self).in_context, _part_of(self).cache_context)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _observer_of(self).called(_part_of(self), args, kwargs)


class _GuardedModuleStandIn(_ModuleStandIn):
    """One that tells before a model may be changed: of all that gives a hold of its insides."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not (name in type(self).own or name == "config" or isinstance(value, _HOLDS_NOTHING)):
            _observer_of(self).touching(_part_of(self))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        _observer_of(self).touching(_part_of(self))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _observer_of(self).touching(_part_of(self))
        super().__delattr__(name)


class _SchedulerStandIn(_StandIn):
    __slots__ = ()
    own = frozenset(["step", "set_timesteps", "timesteps", "__deepcopy__"])

    @property
    def step(self) -> Any:
        method, observer = _part_of(self).step, _observer_of(self)

        def step(*args: Any, **kwargs: Any) -> Any:
            observer.stepped()
            return method(*args, **kwargs)

        # Pipelines look at the signature.
        step.__wrapped__ = method  # type: ignore[attr-defined]
        return step

    @property
    def set_timesteps(self) -> Any:
        scheduler, observer = _part_of(self), _observer_of(self)
        method = scheduler.set_timesteps

        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            observer.scheduled(scheduler)
            return method(
                *map(original, args), **{name: original(value) for name, value in kwargs.items()}
            )

        set_timesteps.__wrapped__ = method  # type: ignore[attr-defined]
        return set_timesteps

    @property
    def timesteps(self) -> Any:
        return _watched_timesteps(_part_of(self).timesteps, weakref.ref(_observer_of(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Some pipelines step copies of their scheduler.
        return _stand_in(_SchedulerStandIn, copy.deepcopy(_part_of(self), memo), _observer_of(self))


class _CallableStandIn(_StandIn):
    """Something of the user's that a pipeline calls, and that is to get the pipeline itself."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _called_outside(_part_of(self), args, kwargs)


class _Passing(type):
    """Metaclass of stand-ins' classes: each equals the one it passes for, and hashes like it.

    Pipelines ask whether the type of a part is a certain class, besides ``isinstance``.
    """

    def __eq__(cls, other: object) -> bool:
        return _passes_for(cls) is _passes_for(other)

    def __hash__(cls) -> int:
        return hash(_passes_for(cls))


def _passes_for(kind: Any) -> Any:
    return kind.__bases__[-1] if isinstance(kind, _Passing) else kind


@functools.cache
def _passing(metaclass: Any) -> Any:
    return type(metaclass.__name__, (_Passing, metaclass), {})


@functools.cache
def _stand_in_class(kind: Any, plain: Any) -> Any:
    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    metaclass: Any = type(plain)
    return _passing(metaclass)(plain.__name__, (kind, plain), {**names, "__slots__": ()})


def _stand_in(kind: Any, part: Any, observer: Observer | None) -> Any:
    plain: Any = type(part)
    made = object.__new__(_stand_in_class(kind, plain))
    vars(_StandIn)["_lazyneg_part"].__set__(made, part)
    vars(_StandIn)["_lazyneg_observer"].__set__(made, observer)
    return made


_HOLDS_NOTHING = (*PLAIN, torch.dtype, torch.device, torch.Tensor)


def is_scheduler(part: Any) -> bool:
    """Whether this is a scheduler, or something that wraps one."""
    return (
        not isinstance(part, (type, torch.nn.Module))
        and hasattr(part, "step")
        and hasattr(part, "set_timesteps")
    )


def modules(pipe: Any) -> list[torch.nn.Module]:
    """The pipeline's models; more than its components, as some pipelines leave out some."""
    held = (part for part in vars(pipe).values() if isinstance(part, torch.nn.Module))
    return list({id(part): part for part in held}.values())


def plain_class(pipe: Any) -> Any:
    """The class of a pipeline, to which nothing was applied."""
    return getattr(type(pipe), "_lazyneg_plain", type(pipe))


class _PipelineStandIn:
    """What the stand-ins of all pipelines have in common."""

    __slots__ = (
        "_lazyneg_devices",
        "_lazyneg_module_kind",
        "_lazyneg_observer",
        "_lazyneg_parts",
        "_lazyneg_pipe",
    )
    _lazyneg_devices: list[Any]
    """What the device was found to be, by this and other stand-ins in the same call."""
    _lazyneg_module_kind: type
    _lazyneg_observer: Observer
    _lazyneg_parts: dict[int, Any]
    """Stand-ins by the ids of the parts, which they keep alive."""
    _lazyneg_pipe: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Of the pipeline within its own call: that is another call.
        return self._lazyneg_pipe(*args, **kwargs)

    @property
    def _execution_device(self) -> Any:
        # It looks through all modules, so that what the true run found is not looked for again.
        devices = self._lazyneg_devices
        if not devices or self._lazyneg_module_kind is _ModuleStandIn:
            devices[:] = [self._lazyneg_pipe._execution_device]
        return devices[0]

    def maybe_free_model_hooks(self) -> None:
        # It puts hooks on models, which must not get a stand-in.
        self._lazyneg_pipe.maybe_free_model_hooks()


class _Part:
    """Attribute of a pipeline's stand-in that holds a part, for which there is a stand-in too."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, pipe: Any, owner: Any) -> Any:
        attributes, parts = pipe.__dict__, pipe._lazyneg_parts
        if self.name not in attributes:
            raise AttributeError(f"{type(pipe).__name__} has no {self.name} any more")
        part = attributes[self.name]
        made = parts.get(id(part))
        if made is None:
            if isinstance(part, torch.nn.Module):
                kind: Any = pipe._lazyneg_module_kind
            elif is_scheduler(part):
                kind = _SchedulerStandIn
            else:
                return part
            made = parts[id(part)] = _stand_in(kind, part, pipe._lazyneg_observer)
        return made

    def __set__(self, pipe: Any, value: Any) -> None:
        vars(pipe)[self.name] = original(value)

    def __delete__(self, pipe: Any) -> None:
        del vars(pipe)[self.name]


@functools.cache
def _pipeline_class(plain: Any, parts: frozenset[str]) -> Any:
    def progress_bar(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._lazyneg_observer.looping()
        return plain.progress_bar(self, *args, **kwargs)

    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    events = {"progress_bar": progress_bar} if hasattr(plain, "progress_bar") else {}
    return type(plain)(
        plain.__name__,
        (_PipelineStandIn, plain),
        {**names, **events, "__slots__": (), **{name: _Part(name) for name in parts}},
    )


def pipeline_stand_in(
    pipe: Any,
    plain: Any,
    observer: Observer,
    devices: list[Any],
    attributes: dict[str, Any] | None = None,
) -> Any:
    """A pipeline that tells ``observer`` what is done with it.

    Args:
        pipe: The pipeline.
        plain: Its class.
        observer: Who is told.
        devices: What the pipeline's device was found to be in this call; empty at first.
        attributes: Attributes in place of the pipeline's own, with which it otherwise shares them.
            The observer is then also told before a model may be changed.
    """
    kind = _ModuleStandIn if attributes is None else _GuardedModuleStandIn
    attributes = vars(pipe) if attributes is None else attributes
    parts = frozenset(
        name
        for name, part in attributes.items()
        if isinstance(part, torch.nn.Module) or is_scheduler(part)
    )
    made = object.__new__(_pipeline_class(plain, parts))
    for name, value in (
        ("__dict__", attributes),
        ("_lazyneg_devices", devices),
        ("_lazyneg_module_kind", kind),
        ("_lazyneg_pipe", pipe),
        ("_lazyneg_observer", observer),
        ("_lazyneg_parts", {}),
    ):
        object.__setattr__(made, name, value)
    return made


@functools.cache
def _unwatched_class(watched: Any) -> Any:
    """Class of a pipeline's stand-in with the parts themselves, as fast as the pipeline."""
    plain = watched.__mro__[2]

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        # Its code may still have stand-ins at hand.
        plain.__setattr__(self, name, original(value))

    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    news = {**names, "__slots__": (), "__setattr__": __setattr__}
    return type(plain)(plain.__name__, (_PipelineStandIn, plain), news)


def unwatch(pipe: Any) -> Callable[[], None]:
    """Has a pipeline's stand-in use the parts themselves, until what this returns is called."""
    watched: Any = type(pipe)
    object.__setattr__(pipe, "__class__", _unwatched_class(watched))
    return functools.partial(object.__setattr__, pipe, "__class__", watched)


def _called_outside(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls something of the user's with the pipelines themselves in place of stand-ins."""

    def outside(value: Any) -> Any:
        kind = type(value)
        return value._lazyneg_pipe if issubclass(kind, _PipelineStandIn) else original(value)

    return function(*map(outside, args), **{name: outside(value) for name, value in kwargs.items()})


def outside(value: Any) -> Any:
    """A stand-in for a callback of the user's, which gets the pipeline itself; else ``value``."""
    if not callable(value) or isinstance(value, (type, torch.nn.Module)):
        return value
    try:
        # Pipelines ask callbacks for their class and for attributes.
        return _stand_in(_CallableStandIn, value, None)
    except TypeError:
        # Of a class that cannot be subclassed, as functions are.
        @functools.wraps(value)
        def callback(*args: Any, **kwargs: Any) -> Any:
            return _called_outside(value, args, kwargs)

        return callback
