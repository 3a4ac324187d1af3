"""Modular pipelines: by what was applied to them, and by a guider."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance, ModularPipeline
from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks

import lazyneg
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

    def prepare_inputs(self, data: dict[str, Any]) -> Any:
        if self._step not in self.window:
            data = {
                key: (pair[0], self.empty.get(key, pair[1])) if isinstance(pair, tuple) else pair
                for key, pair in data.items()
            }
        return super().prepare_inputs(data)


def expected(pipe: ModularPipeline, window: range) -> torch.Tensor:
    before = pipe.guider
    state = pipe(**arguments(negative_prompt=""))
    guider = Swapping(guidance_scale=7.5)
    guider.window = window
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
