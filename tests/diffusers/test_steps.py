"""Steps are those of the pipeline's own loop, whatever its scheduler does in them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IFImg2ImgPipeline,
    StableDiffusionPanoramaPipeline,
    StableDiffusionPipeline,
)

import lazyneg
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import spliced, swapped, third_row
from tests.diffusers.tiny import OwnLoop, _t5, _t5_tokenizer, pipeline, request, unet


@pytest.fixture
def panorama() -> Any:
    parts = pipeline("sd").components
    parts.pop("image_encoder", None)
    pipe = StableDiffusionPanoramaPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wide(pipe: Any, **more: Any) -> torch.Tensor:
    # Three views.
    size = {"height": 16, "width": 640, "num_inference_steps": 4}
    return torch.as_tensor(pipe(**request("sd", **{**size, **more}))[0])


@pytest.mark.parametrize(("views", "calls"), [(1, 3), (2, 2), (3, 1)])
@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
def test_views_of_a_panorama_are_one_step(panorama: Any, kind: Any, views: int, calls: int) -> None:
    panorama.scheduler = kind.from_config(panorama.scheduler.config)
    made: list[int] = []
    hook = panorama.unet.register_forward_hook(lambda *_: made.append(1))
    plain = wide(panorama, view_batch_size=views)
    hook.remove()
    assert len(made) == 4 * calls
    empty = wide(panorama, view_batch_size=views, negative_prompt="")
    assert not torch.equal(plain, empty)
    for critical_step in range(5):
        expected = swapped(panorama, lambda: wide(panorama, view_batch_size=views), critical_step)
        assert torch.equal(expected, plain) is (critical_step == 0)
        assert torch.equal(expected, empty) is (critical_step == 4)
        for amount, unit in ((critical_step, "steps"), (25 * critical_step, "percent")):
            lazyneg.apply(panorama, amount, unit)
            assert torch.equal(wide(panorama, view_batch_size=views), expected)
            lazyneg.remove(panorama)


def test_guidance_that_a_property_denies(panorama: Any, caplog: Any) -> None:
    assert not panorama.do_classifier_free_guidance
    empty = wide(panorama, negative_prompt="")
    assert not torch.equal(wide(panorama), empty)
    lazyneg.apply(panorama, 4)
    with caplog.at_level(logging.INFO, logger="lazyneg"):
        assert torch.equal(wide(panorama), empty)
    assert not [record for record in caplog.records if record.name == "lazyneg"]


class Denying(StableDiffusionPipeline):
    """Says that it does not guide, but within its call."""

    @property
    def do_classifier_free_guidance(self) -> bool:
        return "_calling" in vars(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._calling = True
        try:
            return super().__call__(*args, **kwargs)
        finally:
            del self._calling


def test_guidance_that_a_property_denies_outside_of_the_call(caplog: Any) -> None:
    pipe = Denying(**pipeline("sd").components)
    pipe.set_progress_bar_config(disable=True)
    assert not pipe.do_classifier_free_guidance
    empty = pipe(**request("sd", negative_prompt=""))[0]
    lazyneg.apply(pipe, 5)
    with caplog.at_level(logging.INFO, logger="lazyneg"):
        assert torch.equal(pipe(**request("sd"))[0], empty)
    assert not [record for record in caplog.records if record.name == "lazyneg"]


def deepfloyd(**more: Any) -> tuple[Any, dict[str, Any]]:
    """Announces no steps, and its scheduler has no begin."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = IFImg2ImgPipeline(
            tokenizer=_t5_tokenizer(),
            text_encoder=_t5().eval(),
            unet=unet(in_channels=3, out_channels=6).eval(),
            scheduler=DDPMScheduler(variance_type="learned_range"),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    arguments = {
        "prompt": "girl",
        "negative_prompt": "wearing glasses",
        "image": torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)),
        "num_inference_steps": 10,
        "guidance_scale": 5.0,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "pt",
        "clean_caption": False,
        **more,
    }
    return pipe, arguments


@pytest.mark.parametrize(
    ("strength", "percent", "step"),
    [(0.5, 20, 1), (0.5, 40, 2), (0.5, 50, 2), (0.5, 80, 4), (0.3, 50, 1), (0.8, 50, 4)],
)
def test_percent_where_no_steps_are_announced(strength: float, percent: int, step: int) -> None:
    made = []
    for amount, unit in ((percent, "percent"), (step, "steps")):
        pipe, arguments = deepfloyd(strength=strength)
        lazyneg.apply(pipe, amount, unit)
        made.append(pipe(**arguments)[0])
    pipe, arguments = deepfloyd(strength=strength)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], pipe(**arguments)[0])


@pytest.mark.parametrize(
    ("options", "percent", "step"),
    [
        ({"denoising_end": 0.6}, 34, 1),
        ({"denoising_end": 0.6}, 67, 2),
        ({"denoising_end": 0.6}, 99, 2),
        ({"timesteps": [900, 700, 300]}, 67, 2),
    ],
)
def test_percent_of_a_run_that_is_cut(options: dict[str, Any], percent: int, step: int) -> None:
    pipe = pipeline("sdxl")

    def arguments(**more: Any) -> dict[str, Any]:
        return request("sdxl", **options, **more)

    expected = spliced(pipe, arguments, step, None)
    lazyneg.apply(pipe, percent, "percent")
    assert torch.equal(pipe(**arguments())[0], expected)


@pytest.mark.parametrize(("percent", "step"), [(50, 1), (99, 1)])
def test_percent_of_a_run_that_begins_later(percent: int, step: int) -> None:
    pipe = pipeline("sdxl img2img")
    # Latents, as another pipeline's: two of five steps are left.
    image = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))

    def arguments(**more: Any) -> dict[str, Any]:
        return request("sdxl img2img", image=image, denoising_start=0.6, **more)

    expected = spliced(pipe, arguments, step, None)
    lazyneg.apply(pipe, percent, "percent")
    assert torch.equal(pipe(**arguments())[0], expected)


class ByNumber(OwnLoop):
    """Its loop counts, and takes the timesteps one by one."""

    bar = True

    @torch.no_grad()
    def __call__(self, prompt: str, negative_prompt: str | None = None, **more: Any) -> Any:
        embeds, latents = self.begun(prompt, negative_prompt, **more)
        steps = range(len(self.scheduler.timesteps))
        for i in self.progress_bar(steps) if self.bar else steps:
            t = self.scheduler.timesteps[i]
            given = self.scheduler.scale_model_input(torch.cat([latents] * 2), t)
            out, text = self.unet(given, t, encoder_hidden_states=embeds).sample.chunk(2)
            latents = self.scheduler.step(out + 5.0 * (text - out), t, latents).prev_sample
        return (latents,)


@pytest.mark.parametrize(
    "kind", [DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler]
)
@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_loop_that_counts(kind: Any, step: int) -> None:
    pipe = ByNumber(**pipeline("sd").components)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    expected = spliced(pipe, lambda **more: request("sd", **more), step, None)
    lazyneg.apply(pipe, step)
    assert torch.equal(pipe(**request("sd"))[0], expected)
    # The percent that are so many of the loop's iterations.
    lazyneg.apply(pipe, -(-100 * step // len(pipe.scheduler.timesteps)), "percent")
    assert torch.equal(pipe(**request("sd"))[0], expected)


@pytest.mark.parametrize("step", [0, 1, 3])
def test_area_in_a_loop_that_counts(step: int) -> None:
    pipe = ByNumber(**pipeline("sd").components)
    pipe.set_progress_bar_config(disable=True)
    expected = third_row(
        pipe, lambda **more: request("sd", **more), range(step, step + 2), 30, True
    )
    lazyneg.apply(pipe, step, stop_step=step + 2, area=30, adaptive=True)
    for _ in range(2):
        assert torch.equal(pipe(**request("sd"))[0], expected)


@pytest.mark.parametrize("views", [1, 2, 3])
def test_views_of_a_panorama_have_third_rows(
    panorama: Any, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = wide(panorama, view_batch_size=views)
    rows: list[int] = []
    panorama.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    lazyneg.apply(panorama, 1)
    delayed = wide(panorama, view_batch_size=views)
    once = sum(rows)
    rows.clear()
    lazyneg.apply(panorama, 1, area=20)
    assert not torch.equal(wide(panorama, view_batch_size=views), delayed)
    assert sum(rows) == once + 3 * 3
    monkeypatch.setattr("lazyneg.core.guidance.contained", lambda *_: 1.0)
    lazyneg.apply(panorama, 1, adaptive=True)
    made = wide(panorama, view_batch_size=views)
    assert (made - delayed).norm() < 1e-4 * (delayed - plain).norm()


def test_a_loop_that_cannot_be_seen_is_refused() -> None:
    pipe = ByNumber(**pipeline("sd").components)
    pipe.bar = False
    lazyneg.apply(pipe, 2)
    with pytest.raises(DelayError, match="in a loop over its scheduler's timesteps, or under a"):
        pipe(**request("sd"))


@pytest.mark.parametrize("way", [{}, {"area": 30}, {"adaptive": True}], ids=str)
def test_a_run_of_one_step(way: dict[str, Any]) -> None:
    pipe = pipeline("sd")

    def latents(**more: Any) -> Any:
        return pipe(**request("sd", num_inference_steps=1, **more))[0]

    plain, empty = latents(), latents(negative_prompt="")
    assert not torch.equal(plain, empty)
    for amount, unit in ((1, "steps"), (9, "steps"), (100, "percent")):
        with lazyneg.lazy_negative(pipe, amount, unit, **way):
            assert torch.equal(latents(), empty)
    with lazyneg.lazy_negative(pipe, 99, "percent"):
        assert torch.equal(latents(), plain)
