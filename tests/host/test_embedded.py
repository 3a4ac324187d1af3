"""The embedded model draws the same on both hosts."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from numpy.typing import NDArray
from PIL import Image

import lazyneg
from lazyneg import demo
from lazyneg.demo.detector import Detector
from lazyneg.demo.scenes import FACTS

from .conftest import WebUI, same

STEPS = 20
GUIDANCE = 5.0


@pytest.fixture(scope="module")
def pipe() -> Any:
    loaded = demo.pipeline()
    loaded.set_progress_bar_config(disable=True)
    loaded.scheduler = EulerDiscreteScheduler.from_config(
        loaded.scheduler.config, timestep_spacing="linspace"
    )
    return loaded


def sigmas(pipe: Any) -> list[float]:
    """The noise levels that the WebUI's Euler runs through."""
    signal = pipe.scheduler.alphas_cumprod.double().numpy()
    levels = np.log((1 - signal) / signal) / 2
    steps = np.linspace(len(levels) - 1, 0, STEPS)
    return [*np.exp(np.interp(steps, np.arange(len(levels)), levels)), 0.0]


def painted(pipe: Any, prompt: str, negative: str, seed: int) -> NDArray[np.uint8]:
    picture = pipe(
        prompt,
        negative_prompt=negative,
        sigmas=sigmas(pipe),
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images[0]
    # The WebUI cuts off where diffusers rounds.
    pixels: NDArray[np.uint8] = (255 * picture).astype(np.uint8)
    return pixels


@pytest.mark.parametrize(
    "settings",
    [
        None,
        {"critical_step": 4},
        {"critical_step": 0, "area": 10},
        {"critical_step": 1, "adaptive": True},
        {"critical_step": 0, "area": 20, "adaptive": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("girl eating pizza", "glasses"),
        ("boy with red hair wearing a blue hat", ""),
        ("cat, balloon, green background", "monochrome, hat"),
    ],
)
def test_the_same_picture_on_both_hosts(
    embedded: WebUI, pipe: Any, prompt: str, negative: str, settings: dict[str, Any] | None
) -> None:
    for seed in (1, 2):
        answer = embedded(
            None if settings is None else [{"enabled": True, **settings}],
            prompt=prompt,
            negative_prompt=negative,
            seed=seed,
            steps=STEPS,
            cfg_scale=GUIDANCE,
            width=128,
            height=128,
        )
        delay = nullcontext() if settings is None else lazyneg.lazy_negative(pipe, **settings)
        with delay:
            expected = painted(pipe, prompt, negative, seed)
        difference = np.abs(answer.pixels[0].astype(int) - expected)
        assert expected.std() > 20
        # Float noise that moves a value over a whole number.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.05


def test_emphasis_leaves_the_rest_of_the_prompt(embedded: WebUI) -> None:
    """The WebUI scales a prompt with emphasis to its mean, which must not be near zero."""
    request = {"width": 128, "height": 128, "steps": STEPS, "cfg_scale": GUIDANCE, "batch_size": 4}
    plain = embedded(prompt="girl wearing glasses", negative_prompt="", **request)
    stressed = embedded(prompt="girl wearing (glasses:1.2)", negative_prompt="", **request)
    assert not same(plain, stressed)
    found = Detector()([Image.fromarray(picture) for picture in stressed.pixels]) >= 0.5
    assert found[:, [FACTS.index("girl"), FACTS.index("glasses")]].all()
