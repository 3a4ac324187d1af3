"""The equalities on every sampler that the host lists."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import WebUI, same

STEPS = 8
TWO_CALLS = "Two calls"
"""The sampler of the test support extension."""


@pytest.fixture(scope="module")
def calls_per_step(webui: WebUI) -> dict[str, int]:
    return {
        sampler["name"]: 2
        if sampler["options"].get("second_order") == "True" or sampler["name"] == TWO_CALLS
        else 1
        for sampler in webui.get("samplers")
    }


# Written out so that each shows by its name; the first test keeps the list complete.
SAMPLERS = [
    "DPM++ 2M",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 2S a",
    "DPM++ 3M SDE",
    "Euler a",
    "Euler",
    "LMS",
    "Heun",
    "DPM2",
    "DPM2 a",
    "DPM fast",
    "DPM adaptive",
    "Restart",
    "DDIM",
    "DDIM CFG++",
    "PLMS",
    "UniPC",
    "LCM",
    TWO_CALLS,
]


def test_the_list_is_complete(calls_per_step: dict[str, int]) -> None:
    assert set(calls_per_step) == set(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_txt2img(webui: WebUI, calls_per_step: dict[str, int], sampler: str) -> None:
    request = _request(sampler)
    plain = webui(**request)
    without = webui(**request, negative_prompt="")
    assert not same(plain, without)
    assert same(webui([False, 5], **request), plain)
    assert same(webui([True, 0], **request), plain)
    assert same(webui([True, STEPS], **request), without)
    assert same(webui([True, 1000], **request), without)
    shown = [plain]
    for step in (1, 3, 5):
        lazy = webui([True, step], **request)
        assert same(lazy, webui(support=_reference(sampler, calls_per_step, step), **request))
        assert all(not same(lazy, other) for other in (*shown, without))
        shown.append(lazy)


@pytest.mark.parametrize(
    "sampler", [name for name in SAMPLERS if name not in ("DPM adaptive", TWO_CALLS)]
)
def test_the_hosts_prompt_editing(
    webui: WebUI, calls_per_step: dict[str, int], sampler: str
) -> None:
    """The host switches one call late: `[:x:n]` acts from call n + 1."""
    request = _request(sampler)
    for step in (2, 5):
        edited = f"[:glasses, hat:{calls_per_step[sampler] * step - 1}]"
        assert same(webui([True, step], **request), webui(negative_prompt=edited, **request))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stop_step(webui: WebUI, calls_per_step: dict[str, int], sampler: str) -> None:
    request = _request(sampler)
    lazy = webui([True, 2, "steps", 5], **request)
    assert same(lazy, webui(support=_reference(sampler, calls_per_step, 2, 5), **request))
    assert not same(lazy, webui([True, 2], **request))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_img2img(
    webui: WebUI, calls_per_step: dict[str, int], init_images: list[str], sampler: str
) -> None:
    """A pass of 6 steps: int(0.7 * 8) + 1."""
    request = {**_request(sampler), "denoising_strength": 0.7, "init_images": init_images}
    plain = webui(**request)
    without = webui(**request, negative_prompt="")
    assert same(webui([True, 0], **request), plain)
    assert same(webui([True, 6], **request), without)
    lazy = webui([True, 2], **request)
    assert same(lazy, webui(support=_reference(sampler, calls_per_step, 2), **request))
    assert not same(lazy, plain)
    assert not same(lazy, without)


def _request(sampler: str) -> dict[str, Any]:
    request: dict[str, Any] = {"sampler_name": sampler, "steps": STEPS}
    if sampler == "DPM adaptive":
        request["override_settings"] = {"sd_model_checkpoint": "sd1-long"}
    return request


def _reference(
    sampler: str, calls_per_step: dict[str, int], step: int, stop: int | None = None
) -> dict[str, Any]:
    count = "sigma_of_step" if sampler == "DPM adaptive" else "call"
    each = calls_per_step[sampler]
    window = {f"from_{count}": step * each, f"to_{count}": stop and stop * each}
    return {"reference": {"first": window}}
