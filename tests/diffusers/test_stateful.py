"""Denoisers that keep something from call to call see each call once, as in a plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    StableDiffusionAttendAndExcitePipeline,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0

import lazyneg
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import sd_loop, swapped
from tests.diffusers.tiny import pipeline, request

CRITICAL_STEPS = [0, 1, 3, 5]


def latents(pipe: Any, **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request("sd", **more))[0])


class Fading(AttnProcessor2_0):
    """Acts by its own count of calls, as prompt-to-prompt does."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return super().__call__(*args, **kwargs) * (1 + 1 / self.calls)


class Storing(AttnProcessor2_0):
    """Gives the mean of this call and the one before."""

    before: torch.Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        mixed = made if self.before is None else (made + self.before) / 2
        self.before = made
        return mixed


class Noting(AttnProcessor2_0):
    """Notes what it is given."""

    seen: list[float]

    def __call__(self, attn: Any, states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(float(states.sum()))
        return super().__call__(attn, states, *args, **kwargs)


def each(pipe: Any, kind: Callable[[], Any]) -> None:
    pipe.unet.set_attn_processor({name: kind() for name in pipe.unet.attn_processors})


class Setting(StableDiffusionPipeline):
    """Sets its attention processors in the call."""

    kind: Any = Fading

    def __call__(self, prompt: Any, negative_prompt: Any = None, **more: Any) -> Any:
        each(self, self.kind)
        return super().__call__(prompt, negative_prompt=negative_prompt, **more)


class Hooking(StableDiffusionPipeline):
    """Hangs a hook on the UNet in the call, and takes it off without minding errors."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls: list[int] = []

        def fade(_: Any, inputs: Any, output: Any) -> Any:
            calls.append(1)
            return (output[0] * (1 + 1 / len(calls)),)

        hook = self.unet.register_forward_hook(fade)
        made = super().__call__(*args, **kwargs)
        hook.remove()
        return made


class Previewing(StableDiffusionPipeline):
    """Uses in its own code what a hook on the UNet stored in the call before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stored: list[torch.Tensor] = []
        hook = self.unet.mid_block.register_forward_hook(lambda *got: stored.append(got[-1]))
        step = self.scheduler.step

        def leaning(noise: torch.Tensor, *rest: Any, **more: Any) -> Any:
            return step(noise + stored[-1].mean(), *rest, **more)

        self.scheduler.step = leaning
        try:
            return super().__call__(*args, **kwargs)
        finally:
            del self.scheduler.step
            hook.remove()


@pytest.mark.parametrize("critical_step", CRITICAL_STEPS)
@pytest.mark.parametrize(
    ("kind", "processor"),
    [(Setting, Fading), (Setting, Storing), (Hooking, None), (Previewing, None)],
    ids=lambda kind: getattr(kind, "__name__", ""),
)
def test_state_that_the_call_sets_up(kind: Any, processor: Any, critical_step: int) -> None:
    parts = pipeline("sd").components
    pipe = kind(**parts)
    pipe.kind = processor
    pipe.set_progress_bar_config(disable=True)
    plain, empty = latents(pipe), latents(pipe, negative_prompt="")
    usual = StableDiffusionPipeline(**pipeline("sd").components)
    usual.set_progress_bar_config(disable=True)
    assert not torch.equal(plain, latents(usual))
    expected = swapped(pipe, lambda: latents(pipe), critical_step)
    assert torch.equal(expected, plain) is (critical_step == 0)
    assert torch.equal(expected, empty) is (critical_step == 5)
    lazyneg.apply(pipe, critical_step)
    for _ in range(2):
        assert torch.equal(latents(pipe), expected)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe), plain)


@pytest.mark.parametrize("critical_step", CRITICAL_STEPS)
@pytest.mark.parametrize("kind", [Fading, Storing])
def test_processors_that_the_user_set(kind: Any, critical_step: int) -> None:
    pipe = pipeline("sd")
    each(pipe, kind)
    expected = swapped(pipe, lambda: latents(pipe), critical_step)
    each(pipe, kind)
    lazyneg.apply(pipe, critical_step)
    assert torch.equal(latents(pipe), expected)


def test_processors_see_what_they_see_in_a_plain_call() -> None:
    pipe = pipeline("sd")
    seen: list[list[float]] = []
    for critical_step in (0, 5):
        each(pipe, Noting)
        for processor in pipe.unet.attn_processors.values():
            processor.seen = []
        if critical_step:
            latents(lazyneg.apply(pipe, 5))
        else:
            latents(pipe, negative_prompt="")
        seen.append([value for p in pipe.unet.attn_processors.values() for value in p.seen])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 5 * len(pipe.unet.attn_processors)


@pytest.mark.parametrize("critical_step", CRITICAL_STEPS)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", ["", "mid_block", "up_blocks.1"])
def test_hooks_that_the_user_hung(name: str, before: bool, critical_step: int) -> None:
    pipe = pipeline("sd")
    part = pipe.unet.get_submodule(name)

    def hang() -> Any:
        calls: list[int] = []

        def factor() -> float:
            calls.append(1)
            return 1 + 1 / len(calls)

        if before:
            return part.register_forward_pre_hook(
                lambda _, args, kwargs: (
                    (args[0] * factor(), *args[1:]) if args else args,
                    kwargs
                    if args
                    else {**kwargs, "hidden_states": kwargs["hidden_states"] * factor()},
                ),
                with_kwargs=True,
            )
        return part.register_forward_hook(
            lambda _module, _inputs, output: (
                output * factor()
                if isinstance(output, torch.Tensor)
                else (output[0] * factor(), *output[1:])
            )
        )

    hook = hang()
    expected = swapped(pipe, lambda: latents(pipe), critical_step)
    hook.remove()
    assert not torch.equal(expected, sd_loop(pipe, critical_step, **request("sd")))
    hook = hang()
    lazyneg.apply(pipe, critical_step)
    made = latents(pipe)
    hook.remove()
    assert torch.equal(made, expected)


def deprecated(kind: Any) -> Any:
    parts = pipeline("sd").components
    parts.pop("image_encoder", None)
    pipe = kind(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("critical_step", CRITICAL_STEPS)
def test_self_attention_guidance(critical_step: int) -> None:
    pipe = deprecated(StableDiffusionSAGPipeline)
    plain = latents(pipe, sag_scale=0.75)
    assert not torch.equal(plain, latents(pipe, sag_scale=0.0))
    expected = swapped(pipe, lambda: latents(pipe, sag_scale=0.75), critical_step)
    lazyneg.apply(pipe, critical_step)
    assert torch.equal(latents(pipe, sag_scale=0.75), expected)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe, sag_scale=0.75), plain)


def test_what_only_the_denoisers_effects_could_tell_is_refused() -> None:
    pipe = deprecated(StableDiffusionAttendAndExcitePipeline)
    options: dict[str, Any] = {
        "token_indices": [1, 3],
        "attn_res": (8, 8),
        "max_iter_to_alter": 2,
        "thresholds": {},
    }
    plain = latents(pipe, **options)
    lazyneg.apply(pipe, 0)
    assert torch.equal(latents(pipe, **options), plain)
    lazyneg.apply(pipe, 3)
    with pytest.raises(DelayError, match="what the denoiser keeps, in attention processors"):
        latents(pipe, **options)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe, **options), plain)


class Leaning(StableDiffusionPipeline):
    """Calls its UNet twice a step; the second time with what the first left behind, if it did."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        unet, stored = self.unet, [torch.zeros(1)]
        hook = unet.mid_block.register_forward_hook(
            lambda *got: stored.__setitem__(0, got[-1].mean())
        )
        scale = self.scheduler.scale_model_input

        def probing(latents: torch.Tensor, timestep: Any) -> Any:
            states = torch.zeros(len(latents), 77, 32)
            self.unet(latents, timestep, encoder_hidden_states=states)
            return scale(latents + stored[0], timestep)

        self.scheduler.scale_model_input = probing
        try:
            return super().__call__(*args, **kwargs)
        finally:
            del self.scheduler.scale_model_input
            hook.remove()


def test_effects_that_change_the_next_call_without_failing_are_noticed() -> None:
    parts = pipeline("sd").components
    pipe = Leaning(**parts)
    pipe.set_progress_bar_config(disable=True)
    plain = latents(pipe)
    lazyneg.apply(pipe, 3)
    with pytest.raises(DelayError, match="a rehearsal without them comes to another call"):
        latents(pipe)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe), plain)
