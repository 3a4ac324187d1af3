"""The equalities on every family of checkpoints that the host can load small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import forge_checkpoints
from .conftest import WebUI, same

STEPS = 8


pytestmark = pytest.mark.usefixtures("decoded")


@pytest.fixture(scope="module")
def sdxl(webui: WebUI, data: Path) -> str:
    """The checkpoint of Stable Diffusion XL, which for the Forge family takes a while to make."""
    if webui.kind.forge:
        forge_checkpoints.write_sdxl(data)
        webui.post("refresh-checkpoints", {})
    return "sdxl"


@pytest.fixture(params=["sd1", "sd1-inpainting", "sd2", "sd2-v", "sdxl", "sdxl-refiner", "sd3"])
def checkpoint(webui: WebUI, request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in webui.kind.checkpoints:
        pytest.skip(f"{webui.kind.name} loads no small checkpoint of this family")
    if request.param == "sdxl":
        request.getfixturevalue("sdxl")
    try:
        webui.options(sd_model_checkpoint=f"{request.param}.safetensors")
        webui(steps=1)
    except AssertionError as error:
        if request.param != "sd3":
            raise
        # Its tokenizers have fixed names on the hub.
        pytest.skip(f"this host cannot load an SD3 checkpoint offline: {error}")
    yield request.param
    webui.options(sd_model_checkpoint="sd1.safetensors")


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM++ 2M"])
@pytest.mark.parametrize("zeros", [True, False])
def test_a_checkpoint(webui: WebUI, checkpoint: str, sampler: str, zeros: bool) -> None:
    if not zeros and (checkpoint != "sdxl" or "sdxl_zero_neg" not in webui.known_options):
        pytest.skip("only some hosts have a choice, and only for Stable Diffusion XL")
    if webui.kind.forge and checkpoint == "sdxl" and sampler != "Euler":
        pytest.skip("a large checkpoint: one sampler is enough of it")
    webui.options(sdxl_zero_neg=zeros)
    request = {"steps": STEPS, "sampler_name": sampler, "width": 96}
    calls = 2 if sampler == "Heun" else 1
    plain = webui(**request)
    without = webui(**request, negative_prompt="")
    assert not same(plain, without)
    assert same(webui([True, 0], **request), plain)
    assert same(webui([True, STEPS], **request), without)
    shown = [plain, without]
    for step in (1, 3):
        reference = {"reference": {"first": {"from_call": calls * step}}}
        lazy = webui([True, step], **request)
        assert same(lazy, webui(support=reference, **request))
        assert all(not same(lazy, other) for other in shown)
        shown.append(lazy)


def test_hires_and_early_prompt(webui: WebUI, checkpoint: str) -> None:
    """SDXL's conditioning knows the size of the picture, which differs between the passes."""
    request = {
        "steps": 4,
        "enable_hr": True,
        "hr_scale": 1.5,
        "denoising_strength": 0.8,
    }
    if checkpoint == "sd1-inpainting":
        try:
            webui(**request)
        except AssertionError:
            pytest.skip("the host's own hires pass fails on an inpainting checkpoint in txt2img")
    passes = {"from_call": 2, "text": "lowres, ugly"}
    reference = {"reference": {"first": passes, "hires": passes}}
    lazy = webui([True, 2, "steps", 0, "same", 0, "lowres, ugly"], **request)
    assert same(lazy, webui(support=reference, **request))
    assert not same(lazy, webui([True, 2, "steps", 0, "same"], **request))


def test_area_and_adaptive(webui: WebUI, checkpoint: str) -> None:
    request: dict[str, Any] = {"steps": 4, "width": 96, "batch_size": 2}
    about = {"area": 30, "adaptive": True}
    made = webui([{"enabled": True, "critical_step": 1, **about}], **request)
    reference = webui(**request, support={"choice": {**about, "from_call": 1}})
    assert np.abs(made.pixels.astype(int) - reference.pixels).max() <= 1
    assert not same(made, webui([True, 1], **request))
    # Of the prompt itself, nothing is more than the early prompt.
    request["prompt"] = "a cat, a dog"
    early = {"adaptive": True, "early_prompt": request["prompt"]}
    never = webui([{"enabled": True, "critical_step": 0, **early}], **request)
    assert never.params["LazyNeg acted"] == ["never", "never"]
    assert same(never, webui(**request, negative_prompt=request["prompt"]))


def test_sdxl_hires_size_is_not_that_of_an_earlier_request(webui: WebUI, sdxl: str) -> None:
    webui.options(sd_model_checkpoint="sdxl.safetensors")
    request: dict[str, Any] = {"steps": 4, "enable_hr": True, "denoising_strength": 0.8}
    never = [True, 4, "steps", 0, "same"]
    wide = webui(never, **request, hr_resize_x=96, hr_resize_y=64)
    webui(never, **request, hr_resize_x=64, hr_resize_y=96)
    assert same(webui(never, **request, hr_resize_x=96, hr_resize_y=64), wide)
    reference = {"from_call": 4}
    request["hr_negative_prompt"] = "forget what the host itself has cached"
    tall = webui(never, **request, hr_resize_x=64, hr_resize_y=96)
    support = {"reference": {"first": reference, "hires": reference}}
    assert same(tall, webui(support=support, **request, hr_resize_x=64, hr_resize_y=96))
    webui.options(sd_model_checkpoint="sd1.safetensors")


@pytest.mark.parametrize("switch_at", [0.25, 0.5])
def test_refiner_switch(webui: WebUI, switch_at: float) -> None:
    """The host encodes its prompts again with the refiner's own text encoder; so do we."""
    request = {
        "steps": STEPS,
        "refiner_checkpoint": "sd1b",
        "refiner_switch_at": switch_at,
        "override_settings": {"sd_model_checkpoint": "sd1"},
    }
    base = webui(steps=STEPS, override_settings={"sd_model_checkpoint": "sd1"})
    refined = webui(**request)
    assert not same(refined, base)
    assert same(webui([True, STEPS], **request), webui(**request, negative_prompt=""))
    for step in (2, 3, 6):
        edited = webui(**request, negative_prompt=f"[:glasses, hat:{step - 1}]")
        assert same(webui([True, step], **request), edited)
    stopped = webui([True, 2, "steps", 6], **request)
    assert same(stopped, webui(**request, negative_prompt="[[:glasses, hat:1]::5]"))
    assert not same(stopped, edited)


def test_refiner_in_the_hires_pass(webui: WebUI) -> None:
    request = {
        "steps": STEPS,
        "refiner_checkpoint": "sd1b",
        "refiner_switch_at": 0.5,
        "enable_hr": True,
        "hr_scale": 1.5,
        "denoising_strength": 0.8,
        "override_settings": {"sd_model_checkpoint": "sd1"},
    }
    never = webui([True, STEPS, "steps", 0, "same"], **request)
    assert same(never, webui(**request, negative_prompt=""))
    assert not same(never, webui(**request))


def test_sdxl_refiner(webui: WebUI) -> None:
    if "sdxl-refiner" not in webui.kind.checkpoints:
        pytest.skip(f"{webui.kind.name} loads no small checkpoint of this family")
    request = {
        "steps": STEPS,
        "refiner_checkpoint": "sdxl-refiner",
        "refiner_switch_at": 0.5,
        "override_settings": {"sd_model_checkpoint": "sdxl"},
    }
    without = webui(**request, negative_prompt="")
    assert same(webui([True, STEPS], **request), without)
    assert same(webui([True, 0], **request), webui(**request))
    assert not same(webui([True, 6], **request), without)
