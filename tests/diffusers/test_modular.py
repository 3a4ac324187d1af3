"""Modular pipelines: by what was applied to them, and by a guider."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance, ModularPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks

import lazyneg
from lazyneg.core.guidance import Guidance
from lazyneg.core.settings import SettingsError
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.guider import LazyNegativeGuidance
from tests.diffusers.tiny import pipeline, request


@pytest.fixture
def pipe() -> ModularPipeline:
    blocks = StableDiffusionXLAutoBlocks()
    modular = blocks.init_pipeline()
    parts = pipeline("sdxl").components
    modular.update_components(
        **{name: part for name, part in parts.items() if part and name in modular.components}
    )
    return modular


def arguments(**more: Any) -> dict[str, Any]:
    call = request("sdxl", **more)
    del call["output_type"]
    return call


def latents(pipe: ModularPipeline, **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(output="latents", **arguments(**more)))


class Swapping(ClassifierFreeGuidance):
    """Reference: the embeddings of an empty negative prompt, given by hand."""

    window: range
    empty: dict[str, torch.Tensor]
    choice: Guidance | None = None
    third: Any = None

    def prepare_inputs(self, data: dict[str, Any]) -> Any:
        batches = super().prepare_inputs(data)
        self.third = None
        if self._step not in self.window or self.choice:
            if self._step in self.window:
                _, self.third = super().prepare_inputs(data)
                batches.append(self.third)
            vars(batches[1]).update(self.empty)
        return batches

    def __call__(self, data: Any) -> Any:
        if self.third is None:
            return super().__call__(data)
        cond, empty, negative = (batch.noise_pred for batch in data)
        assert self.choice is not None
        return self.forward(cond, self.choice.uncond(cond[0], empty[0], negative[0], 0)[None])


def expected(pipe: ModularPipeline, window: range, choice: Guidance | None = None) -> torch.Tensor:
    before = pipe.guider
    state = pipe(**arguments(negative_prompt=""))
    guider = Swapping(guidance_scale=7.5)
    guider.window = window
    guider.choice = choice
    guider.empty = {
        "prompt_embeds": state.values["negative_prompt_embeds"],
        "text_embeds": state.values["negative_pooled_prompt_embeds"],
    }
    pipe.update_components(guider=guider)
    made = latents(pipe)
    pipe.update_components(guider=before)
    return made


def test_applied(pipe: ModularPipeline) -> None:
    plain, empty = latents(pipe), latents(pipe, negative_prompt="")
    delayed, stopped = expected(pipe, range(2, 5)), expected(pipe, range(1, 3))
    assert not torch.equal(plain, delayed)
    for critical_step, stop_step, result in (
        (0, None, plain),
        (2, None, delayed),
        (1, 3, stopped),
        (5, None, empty),
    ):
        lazyneg.apply(pipe, critical_step, stop_step=stop_step)
        assert torch.equal(latents(pipe), result)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe), plain)


def test_applied_where_guidance_begins_later(pipe: ModularPipeline) -> None:
    pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=7.5, start=0.4))
    lazyneg.apply(pipe, 1)
    latents(pipe)
    lazyneg.apply(pipe, 4)
    with pytest.raises(DelayError, match="begins only within the delay"):
        latents(pipe)


def test_guider(pipe: ModularPipeline) -> None:
    plain, empty = latents(pipe), latents(pipe, negative_prompt="")
    delayed, stopped = expected(pipe, range(2, 5)), expected(pipe, range(1, 3))
    for critical_step, stop_step, result in (
        (0, None, plain),
        (2, None, delayed),
        (1, 3, stopped),
        (5, None, empty),
    ):
        guider = LazyNegativeGuidance(critical_step=critical_step, stop_step=stop_step)
        pipe.update_components(guider=guider)
        guider.learn(pipe, **arguments(negative_prompt=""))
        assert torch.equal(latents(pipe), result)


@pytest.mark.parametrize(("area", "adaptive"), [(20, False), (100, True), (40, True)])
@pytest.mark.parametrize("stop_step", [None, 4])
def test_area_and_adaptive(
    pipe: ModularPipeline, area: int, adaptive: bool, stop_step: int | None
) -> None:
    window = range(1, stop_step or 5)
    chosen = expected(pipe, window, Guidance(area, adaptive))
    plain = latents(pipe)
    with lazyneg.lazy_negative(pipe, 1, stop_step=stop_step, area=area, adaptive=adaptive):
        assert torch.equal(latents(pipe), chosen)
    guider = LazyNegativeGuidance(
        critical_step=1, stop_step=stop_step, area=area, adaptive=adaptive
    ).new()
    pipe.update_components(guider=guider)
    guider.learn(pipe, **arguments(negative_prompt=""))
    for _ in range(2):
        assert torch.equal(latents(pipe), chosen)
    assert not torch.equal(plain, chosen)


def test_guider_leaves_alone_what_does_not_show(pipe: ModularPipeline) -> None:
    prompts = {"prompt": "girl eating pizza", "negative_prompt": "a"}
    empty = latents(pipe, **{**prompts, "negative_prompt": ""})
    assert not torch.equal(latents(pipe, **prompts), empty)
    guider = LazyNegativeGuidance(critical_step=0, adaptive=True)
    pipe.update_components(guider=guider)
    guider.learn(pipe, **arguments(**{**prompts, "negative_prompt": ""}))
    assert torch.equal(latents(pipe, **prompts), empty)


def test_guider_refuses_processors_that_may_count(pipe: ModularPipeline) -> None:
    class Counting(AttnProcessor2_0):
        pass

    guider = LazyNegativeGuidance(critical_step=1, area=20)
    pipe.update_components(guider=guider)
    guider.learn(pipe, **arguments(negative_prompt=""))
    pipe.unet.set_attn_processor(Counting())
    with pytest.raises(DelayError, match="Counting"):
        latents(pipe)


def test_guider_in_percent_survives_its_configuration(pipe: ModularPipeline) -> None:
    delayed = expected(pipe, range(2, 5))
    guider = LazyNegativeGuidance(critical_step=40, unit="percent").new()
    pipe.update_components(guider=guider)
    guider.learn(pipe, **arguments(negative_prompt=""))
    assert torch.equal(latents(pipe), delayed)


def test_guider_that_learned_nothing_says_so(pipe: ModularPipeline) -> None:
    pipe.update_components(guider=LazyNegativeGuidance(critical_step=2))
    with pytest.raises(DelayError, match="use learn"):
        latents(pipe)


def test_guider_of_another_pipeline_says_so(pipe: ModularPipeline) -> None:
    with pytest.raises(DelayError, match="without asking this guider"):
        LazyNegativeGuidance(critical_step=2).learn(pipe, **arguments())


def test_guider_checks_its_values() -> None:
    with pytest.raises(SettingsError, match="critical_step is -1"):
        LazyNegativeGuidance(critical_step=-1)


def test_several_critical_steps_at_once(pipe: ModularPipeline) -> None:
    wanted = {}
    for step in (5, 3, 0):
        lazyneg.apply(pipe, step)
        wanted[step] = latents(pipe)
    calls: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    made = lazyneg.sweep_steps(pipe, critical_steps=wanted, output="latents", **arguments())
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[step], wanted[step]) for step in wanted)
    # Guidance makes two calls, the one with the prompt first, in which two runs part.
    assert len(calls) == 2 * (5 + 2 + 5) - 2
