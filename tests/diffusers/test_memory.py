"""Repeated calls do not encode the blank negative prompt again, if nothing can have changed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

import lazyneg
from tests.diffusers.reference import sd_loop
from tests.diffusers.tiny import FAMILIES, OwnLoop, clip, pipeline, request


def latents(pipe: Any, family: str = "sd", **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request(family, **more))[0])


def seeded(seed: int) -> dict[str, Any]:
    return {"generator": torch.Generator().manual_seed(seed)}


@pytest.mark.parametrize("family", FAMILIES)
def test_repeats_are_exact_and_encode_nothing_more(family: str) -> None:
    pipe = pipeline(family)
    wanted = {}
    for seed in (0, 1):
        fresh = lazyneg.apply(pipeline(family), 2)
        wanted[seed] = latents(fresh, family, **seeded(seed))
    assert not torch.equal(wanted[0], wanted[1])
    calls: list[int] = []
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and "text_encoder" in name:
            part.register_forward_pre_hook(lambda *_: calls.append(1))
    latents(pipe, family)
    plain = len(calls)
    lazyneg.apply(pipe, 2)
    latents(pipe, family, **seeded(5))
    for seed in (0, 1, 0):
        calls.clear()
        assert torch.equal(latents(pipe, family, **seeded(seed)), wanted[seed])
        # Where a step has several calls, what comes of those after the first is asked each time.
        assert len(calls) == plain or family in ("flux", "qwen", "sd controlnet") or "wan" in family
    lazyneg.apply(pipe, 5)
    assert torch.equal(latents(pipe, family), latents(pipeline(family), family, negative_prompt=""))


def scale_weights(pipe: Any) -> None:
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight.mul_(1.5)


def exchange_encoder(pipe: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        pipe.text_encoder = clip().eval()


def exchange_unet(pipe: Any) -> None:
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.5)


CHANGES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "prompt": (lambda _: None, {"prompt": "boy"}),
    "negative": (lambda _: None, {"negative_prompt": "hat"}),
    "pictures": (lambda _: None, {"num_images_per_prompt": 2}),
    "size": (lambda _: None, {"width": 32}),
    "weights": (scale_weights, {}),
    "encoder": (exchange_encoder, {}),
    "denoiser": (exchange_unet, {}),
    "early prompt": (lambda pipe: lazyneg.apply(pipe, 2, early_prompt="blurry"), {}),
    "critical step": (lambda pipe: lazyneg.apply(pipe, 4), {}),
    "area": (lambda pipe: lazyneg.apply(pipe, 2, area=20), {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_after_a_change_a_call_is_as_the_first(name: str) -> None:
    change, more = CHANGES[name]
    pipe, fresh = (lazyneg.apply(pipeline("sd"), 2) for _ in range(2))
    before = [latents(pipe) for _ in range(2)]
    change(pipe)
    change(fresh)
    wanted = latents(fresh, **more)
    for _ in range(2):
        made = latents(pipe, **more)
        assert torch.equal(made, wanted)
    assert made.shape != before[0].shape or not torch.equal(made, before[0])
    assert torch.equal(*before)


def test_embeddings_with_an_encoder_that_is_only_asked_for_the_empty_prompt() -> None:
    pipe = pipeline("sd")
    with torch.no_grad():
        text, negative = pipe.encode_prompt(
            "girl", "cpu", 1, True, negative_prompt="wearing glasses"
        )
    embeds = {"prompt": None, "prompt_embeds": text}
    given = {**embeds, "negative_prompt": None, "negative_prompt_embeds": negative}
    lazyneg.apply(pipe, 3)
    before = [latents(pipe, **given) for _ in range(2)]
    scale_weights(pipe)
    made = latents(pipe, **given)
    assert not torch.equal(made, before[1])
    assert torch.equal(made, sd_loop(pipe, 3, **request("sd", **given)))


def test_a_callback_that_writes_into_the_embeddings() -> None:
    def scale(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 4:
            tensors["prompt_embeds"].mul_(0)
        return tensors

    pipe = lazyneg.apply(pipeline("sd"), 2)
    wanted = [latents(pipe) for _ in range(2)]
    latents(pipe, callback_on_step_end=scale, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    assert torch.equal(latents(pipe), wanted[0])


class Scaling(StableDiffusionPipeline):
    """Encodes an empty prompt in a way that is set on the pipeline."""

    empty_scale = 1.0

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        text, negative = super().encode_prompt(*args, **kwargs)
        empty = "" in args or kwargs.get("negative_prompt") == ""
        return text, negative * (self.empty_scale if empty else 1)


def test_an_attribute_that_only_the_empty_prompt_shows() -> None:
    pipes = [Scaling(**pipeline("sd").components) for _ in range(2)]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        lazyneg.apply(pipe, 3)
    before = [latents(pipes[0]) for _ in range(2)]
    for pipe in pipes:
        pipe.empty_scale = 2.0
    made = latents(pipes[0])
    assert torch.equal(made, latents(pipes[1]))
    assert not torch.equal(made, before[0])


def test_a_configuration_that_only_the_empty_prompt_shows() -> None:
    pipe = lazyneg.apply(pipeline("sdxl"), 3, early_prompt=None)
    before = [latents(pipe, "sdxl") for _ in range(2)]
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    other = pipeline("sdxl")
    other.register_to_config(force_zeros_for_empty_prompt=False)
    made = latents(pipe, "sdxl")
    assert torch.equal(made, latents(lazyneg.apply(other, 3, early_prompt=None), "sdxl"))
    assert not torch.equal(made, before[0])


def test_nothing_keeps_a_pipeline_alive() -> None:
    pipe = lazyneg.apply(pipeline("sd"), 2)
    latents(pipe)
    seen = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert seen() is None


def test_nothing_keeps_a_freed_encoder() -> None:
    pipe = lazyneg.apply(pipeline("sd"), 2)
    latents(pipe)
    seen = weakref.ref(pipe.text_encoder)
    pipe.text_encoder = None
    gc.collect()
    assert seen() is None


class Twice(OwnLoop):
    """Two loops in one call, and a scheduler that is put back in the midst of each."""

    scheduler: Any

    def __call__(self, prompt: str, negative_prompt: str | None = None, **more: Any) -> Any:
        embeds, states = self.begun(prompt, negative_prompt, **more)
        scheduler = self.scheduler
        for _ in range(2):
            self.scheduler.set_timesteps(more["num_inference_steps"])
            for timestep in self.scheduler.timesteps:
                self.scheduler = scheduler
                both = self.unet(torch.cat([states] * 2), timestep, embeds).sample
                negative, positive = both.chunk(2)
                guided = negative + 7.5 * (positive - negative)
                states = self.scheduler.step(guided, timestep, states).prev_sample
        return (states,)


@pytest.mark.parametrize("critical_step", [1, 3])
def test_each_loop_is_delayed_and_leaves_the_parts_as_they_were(critical_step: int) -> None:
    pipe = Twice(**pipeline("sd").components)
    seen: list[Any] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[2][0]))
    with torch.no_grad():
        pipe(**request("sd"))
        given = seen.pop()
        seen.clear()
        lazyneg.apply(pipe, critical_step)(**request("sd"))
    delayed = [not torch.equal(embeds, given) for embeds in seen]
    assert delayed == 2 * [step < critical_step for step in range(5)]
    assert type(vars(pipe)["scheduler"]) is DDIMScheduler
