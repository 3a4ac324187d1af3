"""What must not disturb one another, and pipelines that need more than the usual."""

from __future__ import annotations

import copy
import inspect
import threading
from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    StableDiffusionPipeline,
    StableUnCLIPPipeline,
    VQModel,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

import lazyneg
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import sd_loop
from tests.diffusers.tiny import clip, pipeline, request, unet


def latents(pipe: Any, family: str, **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request(family, **more))[0])


def test_another_thread_with_the_same_models_is_not_affected() -> None:
    pipe = pipeline("sd")
    parts = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}
    other = StableDiffusionPipeline(**parts)
    other.set_progress_bar_config(disable=True)
    plain = latents(other, "sd")
    found = []

    def meanwhile(*arguments: Any) -> Any:
        if arguments[1] == 1:
            thread = threading.Thread(target=lambda: found.append(latents(other, "sd")))
            thread.start()
            thread.join()
        return arguments[-1]

    lazyneg.apply(pipe, 3)
    made = latents(pipe, "sd", callback_on_step_end=meanwhile)
    assert torch.equal(found[0], plain)
    assert torch.equal(made, sd_loop(pipe, 3, **request("sd")))
    assert "_compiled_call_impl" not in vars(pipe.unet)


def test_two_delayed_threads_with_the_same_models() -> None:
    pipe = pipeline("sd")
    parts = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}
    other = StableDiffusionPipeline(**parts)
    other.set_progress_bar_config(disable=True)
    pipes = {2: lazyneg.apply(pipe, 2), 4: lazyneg.apply(other, 4)}
    expected = {step: sd_loop(pipe, step, **request("sd")) for step in pipes}
    found: dict[int, torch.Tensor] = {}
    both = threading.Barrier(2)

    def work(step: int) -> None:
        def callback(*arguments: Any) -> Any:
            both.wait(60)
            return arguments[-1]

        found[step] = latents(pipes[step], "sd", callback_on_step_end=callback)

    threads = [threading.Thread(target=work, args=(step,)) for step in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {step: torch.equal(found[step], expected[step]) for step in pipes} == {2: True, 4: True}
    assert "_compiled_call_impl" not in vars(pipe.unet)


def test_a_copy_keeps_what_was_applied() -> None:
    pipe = lazyneg.apply(pipeline("sd"), 2)
    made = latents(copy.deepcopy(pipe), "sd")
    assert torch.equal(made, sd_loop(pipe, 2, **request("sd")))


def test_no_negative_prompt_at_all_as_the_early_one() -> None:
    pipe = pipeline("sdxl")
    none, empty = (latents(pipe, "sdxl", negative_prompt=text) for text in (None, ""))
    assert not torch.equal(none, empty)
    lazyneg.apply(pipe, 5, early_prompt=None)
    assert torch.equal(latents(pipe, "sdxl"), none)


def test_no_negative_prompt_where_that_ends_guidance_is_an_error() -> None:
    pipe = lazyneg.apply(pipeline("flux"), 2, early_prompt=None)
    with pytest.raises(DelayError, match="in another way"):
        latents(pipe, "flux")


@pytest.mark.parametrize("more", [{"negative_prompt_2": "blurry"}, {"negative_prompt_3": "bad"}])
def test_several_negative_prompts(more: dict[str, str]) -> None:
    pipe = pipeline("sd3")
    empty = latents(pipe, "sd3", negative_prompt="")
    assert not torch.equal(latents(pipe, "sd3", **more), latents(pipe, "sd3"))
    lazyneg.apply(pipe, 5)
    assert torch.equal(latents(pipe, "sd3", **more), empty)


def test_random_numbers_drawn_by_the_denoiser() -> None:
    pipe = pipeline("sd")
    for part in pipe.unet.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    pipe.unet.train()
    torch.manual_seed(1)
    empty = latents(pipe, "sd", negative_prompt="")
    lazyneg.apply(pipe, 5)
    torch.manual_seed(1)
    assert torch.equal(latents(pipe, "sd"), empty)


def test_text_gone_from_the_pipeline_is_not_taken_for_another() -> None:
    """The same text for both prompts: which call is which is told by the place."""
    for family in ("flux", "wan with two transformers"):
        pipe = pipeline(family)
        same = {"negative_prompt": request(family)["prompt"]}
        empty = latents(pipe, family, negative_prompt="")
        lazyneg.apply(pipe, 5)
        assert torch.equal(latents(pipe, family, **same), empty)


def test_pipelines_made_of_pipelines_name_their_parts() -> None:
    movq = VQModel(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    parts = dict.fromkeys(inspect.signature(KandinskyV22CombinedPipeline).parameters)
    combined = KandinskyV22CombinedPipeline(**{**parts, "movq": movq})
    with pytest.raises(TypeError, match=r"such as pipe\.prior_pipe, pipe\.decoder_pipe"):
        lazyneg.apply(combined)


class Reticent(StableDiffusionPipeline):
    """Does not list its scheduler, as pipelines do not that can make one by themselves."""

    @property
    def components(self) -> dict[str, Any]:
        return {name: part for name, part in super().components.items() if name != "scheduler"}


def test_a_scheduler_that_is_not_listed_as_a_component() -> None:
    parts = pipeline("sd").components
    pipe = lazyneg.apply(Reticent(**parts), 2)
    pipe.set_progress_bar_config(disable=True)
    assert torch.equal(latents(pipe, "sd"), sd_loop(pipe, 2, **request("sd")))


def test_one_progress_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = lazyneg.apply(pipeline("sd"), 2)
    pipe.set_progress_bar_config(disable=False, desc="painting")
    latents(pipe, "sd")
    shown = capsys.readouterr().err
    assert shown.count("painting:   0%") == 1
    assert "painting: 100%" in shown


def two_stages() -> Any:
    """Its first loop makes an embedding of the picture, and knows no negative prompt."""
    parts = {name: part for name, part in pipeline("sd").components.items() if part}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = StableUnCLIPPipeline(
            prior_tokenizer=parts["tokenizer"],
            prior_text_encoder=clip(projection=True),
            prior=PriorTransformer(
                num_attention_heads=2, attention_head_dim=8, embedding_dim=32, num_layers=1
            ),
            prior_scheduler=DDPMScheduler(
                variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
            ),
            image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=32),
            image_noising_scheduler=DDPMScheduler(),
            **{name: parts[name] for name in ("tokenizer", "text_encoder", "scheduler", "vae")},
            unet=unet(class_embed_type="projection", projection_class_embeddings_input_dim=64),
        )
    pipe.set_progress_bar_config(disable=True)
    for name in ("prior", "unet", "prior_text_encoder"):
        getattr(pipe, name).eval()
    return pipe


def test_a_negative_prompt_that_comes_in_with_a_second_model_is_an_error() -> None:
    pipe = two_stages()
    plain = latents(pipe, "sd", prior_num_inference_steps=2)
    empty = latents(pipe, "sd", prior_num_inference_steps=2, negative_prompt="")
    assert not torch.equal(plain, empty)
    lazyneg.apply(pipe, 1)
    with pytest.raises(DelayError, match="calls UNet2DConditionModel in a way that step 0 did"):
        latents(pipe, "sd", prior_num_inference_steps=2)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe, "sd", prior_num_inference_steps=2), plain)
