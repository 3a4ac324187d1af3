"""Delay the negative prompt of diffusers' pipelines."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from lazyneg.core.settings import Settings, SettingsError
from lazyneg.diffusers.blank import Early, Parameters, early_name, negative_names
from lazyneg.diffusers.delay import delayed_call
from lazyneg.diffusers.leaves import leaves
from lazyneg.diffusers.memory import STATE, forget
from lazyneg.diffusers.rehearsal import Randomness
from lazyneg.diffusers.sharing import Tape
from lazyneg.diffusers.standins import plain_class

Pipeline = TypeVar("Pipeline")


@dataclass(frozen=True)
class _State:
    settings: Settings
    early: Early


def _state(
    pipe: Any,
    critical_step: int,
    unit: str,
    stop_step: int | None,
    early_prompt: str | None,
    area: int,
    adaptive: bool,
    early_embeds: dict[str, Any],
) -> _State:
    _check_pipeline(pipe)
    values = {
        "enabled": True,
        "critical_step": critical_step,
        "unit": unit,
        "stop_step": stop_step,
        "early_prompt": early_prompt,
        "area": area,
        "adaptive": adaptive,
    }
    settings = Settings.parse(values)
    given = {name: value for name, value in early_embeds.items() if value is not None}
    if given and early_prompt != "":
        raise SettingsError(
            f"early_prompt is {early_prompt!r} beside {', '.join(given)}; allowed: one or the other"
        )
    allowed = _early_names(pipe)
    for name, value in given.items():
        if name not in allowed:
            raise TypeError(
                f"{plain_class(pipe).__name__} takes no {name}; allowed: "
                + (", ".join(allowed) or "early_prompt")
            )
        kinds = {type(leaf).__name__ for _, leaf in leaves(value)}
        if not all(isinstance(leaf, torch.Tensor) for _, leaf in leaves(value)):
            raise TypeError(f"{name} has {', '.join(kinds)}; allowed: a tensor, or a list of them")
    encoded = {allowed[name]: value for name, value in given.items()}
    return _State(settings, Early(None if early_prompt is None else settings.early_prompt, encoded))


@functools.cache
def _lazy_class(plain: Any) -> Any:
    """Subclass of a pipeline's class under the same name, for single pipelines."""

    @functools.wraps(plain.__call__)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        state = vars(self)[STATE]
        return delayed_call(self, plain, state.settings, state.early, args, kwargs)

    names = {name: getattr(plain, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(plain.__name__, (plain,), {**names, "__call__": __call__, "_lazyneg_plain": plain})


def _check_pipeline(pipe: Any) -> None:
    plain = plain_class(pipe)
    if not hasattr(pipe, "components") or not callable(pipe):
        raise TypeError(f"got {plain.__name__}; allowed: a pipeline of diffusers")
    parts = [name for name in vars(pipe) if name.endswith("_pipe")]
    if parts:
        raise TypeError(
            f"{plain.__name__} is made of several pipelines; allowed: one of them, such as "
            + ", ".join(f"pipe.{name}" for name in parts)
        )
    if not any(negative_names(Parameters.of(pipe, plain).defaults)):
        raise TypeError(f"{plain.__name__} takes no negative prompt: there is nothing to delay")


def _early_names(pipe: Any) -> dict[str, str]:
    """The early embeddings that can be given, and the pipeline's names for the negative ones."""
    _, encoded = negative_names(Parameters.of(pipe, plain_class(pipe)).defaults)
    return {early_name(name): name for name in encoded}


def apply(
    pipe: Pipeline,
    critical_step: int = 5,
    unit: str = "steps",
    stop_step: int | None = None,
    early_prompt: str | None = "",
    area: int = 100,
    adaptive: bool = False,
    **early_embeds: Any,
) -> Pipeline:
    r"""Makes every call of a pipeline use its negative prompt only from the critical step on.

    The pipeline is called as before; its class keeps its name and stays a subclass of what it
    was. Other pipelines, of the same class or with the same models, are not affected. Applying
    again only changes the settings. The pipeline's loop counts the steps: a second-order
    scheduler has about twice as many.

    Args:
        pipe ([`~diffusers.DiffusionPipeline`] or [`~diffusers.ModularPipeline`]):
            The pipeline. It must take a negative prompt.
        critical_step (`int`, defaults to 5):
            First step, counted from 0, that uses the negative prompt; the steps before it use
            `early_prompt`. `0` changes nothing, the number of steps or more never applies the
            negative prompt.
        unit (`str`, defaults to `"steps"`):
            `"steps"`, or `"percent"` of the steps of the call.
        stop_step (`int`, *optional*):
            From this step on `early_prompt` is used again. Never, if not given or `0`.
        early_prompt (`str`, *optional*, defaults to `""`):
            The negative prompt of the other steps. `None` passes none at all, which some
            pipelines tell from an empty one: Stable Diffusion XL uses zeros for it.
        area (`int`, defaults to 100):
            Percent of the positions of the picture's latents in which the negative prompt acts:
            where it changes most. `100` is everywhere, and costs nothing.
        adaptive (`bool`, defaults to `False`):
            Whether the negative prompt acts in a picture only while what it names shows there. A
            picture in which it never acts is the one without a negative prompt.
        early_embeds (`torch.Tensor`, *optional*):
            In place of `early_prompt`, what the pipeline is to get of it in encoded form, under
            its own names with `early_` for `negative_`: `early_prompt_embeds` for
            `negative_prompt_embeds`, `early_pooled_prompt_embeds`, `early_prompt_attention_mask`
            and the like, shaped like those. The text encoder is not needed then.

    Returns:
        The same pipeline.

    Raises:
        [`~lazyneg.core.settings.SettingsError`]: If a value is not allowed.
        `TypeError`: If `pipe` is not a pipeline that takes a negative prompt, or takes none in the
            form of these early embeddings.
    """
    state = _state(pipe, critical_step, unit, stop_step, early_prompt, area, adaptive, early_embeds)
    vars(pipe)[STATE] = state
    pipe.__class__ = _lazy_class(plain_class(pipe))
    return pipe


def remove(pipe: Pipeline) -> Pipeline:
    r"""Undoes [`apply`]. A pipeline to which nothing was applied stays as it is.

    Args:
        pipe ([`~diffusers.DiffusionPipeline`] or [`~diffusers.ModularPipeline`]):
            The pipeline.

    Returns:
        The same pipeline.
    """
    pipe.__class__ = plain_class(pipe)
    vars(pipe).pop(STATE, None)
    forget(pipe)
    return pipe


@contextlib.contextmanager
def lazy_negative(
    pipe: Pipeline,
    critical_step: int = 5,
    unit: str = "steps",
    stop_step: int | None = None,
    early_prompt: str | None = "",
    area: int = 100,
    adaptive: bool = False,
    **early_embeds: Any,
) -> Iterator[Pipeline]:
    r"""Context manager that applies to a pipeline and restores what was applied before.

    Args:
        pipe ([`~diffusers.DiffusionPipeline`] or [`~diffusers.ModularPipeline`]):
            The pipeline.
        critical_step (`int`, defaults to 5):
            As in [`apply`], and so are the others.
        unit (`str`, defaults to `"steps"`):
            As in [`apply`].
        stop_step (`int`, *optional*):
            As in [`apply`].
        early_prompt (`str`, *optional*, defaults to `""`):
            As in [`apply`].
        area (`int`, defaults to 100):
            As in [`apply`].
        adaptive (`bool`, defaults to `False`):
            As in [`apply`].
        early_embeds (`torch.Tensor`, *optional*):
            As in [`apply`].
    """
    before = vars(pipe).get(STATE)
    apply(pipe, critical_step, unit, stop_step, early_prompt, area, adaptive, **early_embeds)
    try:
        yield pipe
    finally:
        remove(pipe)
        if before is not None:
            vars(pipe)[STATE] = before
            pipe.__class__ = _lazy_class(plain_class(pipe))


def forward_lazy_negative(
    self: Any,
    *args: Any,
    critical_step: int = 0,
    unit: str = "steps",
    stop_step: int | None = None,
    early_prompt: str | None = "",
    area: int = 100,
    adaptive: bool = False,
    **kwargs: Any,
) -> Any:
    r"""One call of a pipeline with its negative prompt delayed; the next is as always.

    To be bound to a pipeline as a method:

    ```py
    >>> from types import MethodType
    >>> from diffusers import StableDiffusionPipeline
    >>> from lazyneg import forward_lazy_negative

    >>> pipe = StableDiffusionPipeline.from_single_file("model.safetensors")
    >>> pipe.forward_lazy_negative = MethodType(forward_lazy_negative, pipe)
    >>> image = pipe.forward_lazy_negative(
    ...     prompt="girl eating pizza", negative_prompt="wearing glasses", critical_step=5
    ... ).images[0]
    ```

    Args:
        self ([`~diffusers.DiffusionPipeline`]):
            The pipeline.
        args:
            The pipeline's own positional arguments.
        critical_step (`int`, defaults to 0):
            As in [`apply`], but plain calls need no delay: it is `0` if not given.
        unit (`str`, defaults to `"steps"`):
            As in [`apply`].
        stop_step (`int`, *optional*):
            As in [`apply`].
        early_prompt (`str`, *optional*, defaults to `""`):
            As in [`apply`].
        area (`int`, defaults to 100):
            As in [`apply`].
        adaptive (`bool`, defaults to `False`):
            As in [`apply`].
        kwargs:
            The pipeline's own named arguments, and early embeddings as in [`apply`].

    Returns:
        What the pipeline returns.

    Raises:
        [`~lazyneg.core.settings.SettingsError`]: If a value is not allowed.
        [`~lazyneg.diffusers.errors.DelayError`]: If the call cannot be delayed exactly.
        `TypeError`: If this is not a pipeline that takes a negative prompt.
    """
    _check_pipeline(self)
    early = {name: kwargs.pop(name) for name in _early_names(self) if name in kwargs}
    state = _state(self, critical_step, unit, stop_step, early_prompt, area, adaptive, early)
    return delayed_call(self, plain_class(self), state.settings, state.early, args, kwargs)


def sweep_steps(
    pipe: Any,
    *args: Any,
    critical_steps: Iterable[int],
    unit: str = "steps",
    stop_step: int | None = None,
    early_prompt: str | None = "",
    area: int = 100,
    adaptive: bool = False,
    **kwargs: Any,
) -> dict[int, Any]:
    r"""One call of a pipeline with each of several critical steps, to choose by eye.

    Each output is, to the last bit, that of a call of its own with the same generator, but steps
    that begin alike are computed once: those before the smallest critical step, for one, are the
    same for all. Meanwhile what the denoisers gave in one call is kept in the CPU's memory. Models
    that keep something from call to call, such as a cache, are always called.

    ```py
    >>> made = lazyneg.sweep_steps(
    ...     pipe, "girl eating pizza", negative_prompt="wearing glasses", critical_steps=range(11)
    ... )
    >>> made[5].images[0]
    ```

    Args:
        pipe ([`~diffusers.DiffusionPipeline`] or [`~diffusers.ModularPipeline`]):
            The pipeline. What was applied to it does not matter, and stays.
        args:
            The pipeline's own positional arguments.
        critical_steps (`Iterable[int]`):
            As `critical_step` in [`apply`]. Some may be past the last step: that is the picture
            without a negative prompt.
        unit (`str`, defaults to `"steps"`):
            As in [`apply`], and so are the next four.
        stop_step (`int`, *optional*):
            See there; after all critical steps.
        early_prompt (`str`, *optional*, defaults to `""`):
            See there.
        area (`int`, defaults to 100):
            See there.
        adaptive (`bool`, defaults to `False`):
            See there.
        kwargs:
            The pipeline's own named arguments, and early embeddings as in [`apply`]. Random
            numbers are drawn alike in all calls, with generators given or not.

    Returns:
        `dict[int, Any]`: What the pipeline returns, by critical step, in the order given.

    Raises:
        [`~lazyneg.core.settings.SettingsError`]: If a value is not allowed; before any call.
        [`~lazyneg.diffusers.errors.DelayError`]: If the call cannot be delayed exactly.
        `TypeError`: If this is not a pipeline that takes a negative prompt.
    """
    _check_pipeline(pipe)
    early = {name: kwargs.pop(name) for name in _early_names(pipe) if name in kwargs}
    states = {
        step: _state(pipe, step, unit, stop_step, early_prompt, area, adaptive, early)
        for step in critical_steps
    }
    generators = [leaf for _, leaf in leaves((args, kwargs)) if isinstance(leaf, torch.Generator)]
    begun = [generator.get_state() for generator in generators]
    randomness = Randomness()
    tape = Tape()
    outputs = {}
    # The later they part from the call without a negative prompt, the sooner.
    for step in sorted(states, reverse=True):
        randomness.restore()
        for generator, state in zip(generators, begun):
            generator.set_state(state)
        settings, instead = states[step].settings, states[step].early
        outputs[step] = delayed_call(
            pipe, plain_class(pipe), settings, instead, args, dict(kwargs), tape
        )
    return {step: outputs[step] for step in states}
