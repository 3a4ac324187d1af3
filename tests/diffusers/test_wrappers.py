"""Pipelines and schedulers that are not quite diffusers' own."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)

import lazyneg
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import sd_loop, spliced
from tests.diffusers.tiny import pipeline, request


class Wrapped:
    """A scheduler that looks up all in another, as servers have one for each request."""

    def __init__(self, scheduler: Any) -> None:
        self.__dict__["scheduler"] = scheduler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["scheduler"], name)


class Forwarding:
    """Another kind: it sets there too, and cannot be copied before it has a scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if hasattr(self.scheduler, name):
            return getattr(self.scheduler, name)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("scheduler", "lock") and hasattr(self.scheduler, name):
            setattr(self.scheduler, name, value)
        else:
            super().__setattr__(name, value)


# ControlNet's steps have two denoiser calls, between which there is a rehearsal.
@pytest.mark.parametrize("family", ["sd", "sd controlnet"])
@pytest.mark.parametrize("wrapper", [Wrapped, Forwarding, lambda s: Wrapped(Forwarding(s))])
@pytest.mark.parametrize(
    "kind", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler]
)
def test_a_scheduler_behind_a_wrapper(kind: Any, wrapper: Any, family: str) -> None:
    pipe = pipeline(family)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    expected = spliced(pipe, lambda **more: request(family, **more), 2, None)
    pipe.scheduler = wrapper(pipe.scheduler)
    lazyneg.apply(pipe, 2)
    for _ in range(2):
        assert torch.equal(pipe(**request(family))[0], expected)


class Anything(StableDiffusionPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class More(Anything):
    def __call__(self, prompt: Any = None, *args: Any, extra: int = 1, **kwargs: Any) -> Any:
        assert extra == 2
        return super().__call__(prompt, *args, **kwargs)


class Fixed(StableDiffusionPipeline):
    """Gives some arguments itself, which must not be given to it."""

    def __call__(self, prompt: str, negative_prompt: str = "wearing glasses", **more: Any) -> Any:
        more.pop("eta", None)
        return super().__call__(
            prompt, negative_prompt=negative_prompt, eta=0.0, guidance_scale=7.5, **more
        )


class Twice(StableDiffusionPipeline):
    """Fails where it is given what it gives itself."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, eta=0.0, **kwargs)


def of(kind: Any) -> Any:
    pipe = kind(**pipeline("sd").components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("kind", [Anything, More, Fixed])
@pytest.mark.parametrize("critical_step", [0, 2, 5])
def test_a_subclass_that_hands_arguments_on(kind: Any, critical_step: int) -> None:
    pipe = of(kind)
    expected = sd_loop(pipe, critical_step, **request("sd"))
    more = {"extra": 2} if kind is More else {}
    lazyneg.apply(pipe, critical_step)
    assert torch.equal(pipe(**request("sd", **more))[0], expected)
    for positional in (1, 2) if kind is Fixed else (1,):
        arguments = request("sd", **more)
        first = [arguments.pop(name) for name in ("prompt", "negative_prompt")[:positional]]
        assert torch.equal(pipe(*first, **arguments)[0], expected)


def test_a_negative_prompt_by_default() -> None:
    pipe = of(Fixed)
    expected = sd_loop(pipe, 2, **request("sd"))
    lazyneg.apply(pipe, 2)
    arguments = request("sd")
    del arguments["negative_prompt"]
    assert torch.equal(pipe(**arguments)[0], expected)


def test_a_negative_prompt_among_any_arguments() -> None:
    pipe = of(Anything)
    expected = sd_loop(pipe, 2, **request("sd"))
    lazyneg.apply(pipe, 2)
    rest = request("sd")
    names = ("prompt", "height", "width", "num_inference_steps")
    first = [rest.pop(name) for name in names]
    made = pipe(*first, None, None, 7.5, rest.pop("negative_prompt"), **rest)[0]
    assert torch.equal(made, expected)


def test_an_error_of_the_subclass_comes_through() -> None:
    pipe = lazyneg.apply(of(More), 2)
    with pytest.raises(AssertionError):
        pipe(**request("sd", extra=1))
    with pytest.raises(TypeError, match="eta"):
        lazyneg.apply(of(Twice), 2)(**request("sd", eta=0.5))


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_copies_are_pipelines_of_their_own(family: str) -> None:
    pipe = pipeline(family)
    expected = spliced(pipe, lambda **more: request(family, **more), 2, None)
    plain = pipe(**request(family))[0]
    lazyneg.apply(pipe, 2)
    other = copy.copy(pipe)
    other.scheduler = copy.deepcopy(pipe.scheduler)
    assert torch.equal(other(**request(family))[0], expected)
    lazyneg.remove(other)
    assert torch.equal(other(**request(family))[0], plain)
    assert torch.equal(pipe(**request(family))[0], expected)
    lazyneg.remove(pipe)
    assert torch.equal(pipe(**request(family))[0], plain)


class Replacing(StableDiffusionPipeline):
    """Sets its own parts in the call, as pipelines do that move models or copy schedulers."""

    unet: Any
    vae: Any
    scheduler: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.unet = self.unet
        self.vae = self.vae.to(torch.float32)
        self.scheduler = copy.deepcopy(self.scheduler)
        return super().__call__(*args, **kwargs)


def test_parts_that_the_call_sets() -> None:
    pipe = of(Replacing)
    expected = sd_loop(pipe, 2, **request("sd"))
    parts = pipe.unet, pipe.vae
    lazyneg.apply(pipe, 2)
    assert torch.equal(pipe(**request("sd"))[0], expected)
    lazyneg.remove(pipe)
    assert (pipe.unet, pipe.vae) == parts
    assert type(pipe.scheduler) is DDIMScheduler


def test_what_is_no_pytorch_model_is_named() -> None:
    pipe = pipeline("sd")
    unet = pipe.unet

    class Remote:
        config = unet.config
        dtype = unet.dtype

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return unet(*args, **kwargs)

    plain = pipe(**request("sd"))[0]
    vars(pipe)["unet"] = Remote()
    assert torch.equal(pipe(**request("sd"))[0], plain)
    lazyneg.apply(pipe, 2)
    with pytest.raises(DelayError, match="calls no PyTorch model of its own"):
        pipe(**request("sd"))
