"""The entry of the Script menu, by the API: its pictures are those of requests of their own."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import TITLE, Answer, WebUI, same

SCRIPT = f"{TITLE}: compare"

# Pictures as cheaply decoded as other tests want them are too small for Neo's labels.
pytestmark = pytest.mark.usefixtures("decoded")


def compare(webui: WebUI, lazy: Any, more: str = "", **request: Any) -> list[Answer]:
    """All pictures; the grid comes first."""
    made = webui(lazy, script_name=SCRIPT, script_args=[more], **request)
    return [Answer(made.info, [png]) for png in made.pngs]


def alone(webui: WebUI, lazy: Any, **request: Any) -> list[Answer]:
    """The same pictures, each way in a request of its own."""
    return [
        webui(**{**request, "negative_prompt": ""}),
        webui(**request),
        webui(lazy, **request),
    ]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"sampler_name": "DPM++ 2M", "cfg_scale": 4},
        {"enable_hr": True, "denoising_strength": 0.7, "hr_scale": 1.5, "steps": 5},
        {"prompt": "girl AND pizza"},
    ],
)
def test_each_picture_is_that_of_its_request(webui: WebUI, request_: dict[str, Any]) -> None:
    lazy = [True, 3, "steps", 7, "same"]
    grid, *made = compare(webui, lazy, **request_)
    expected = alone(webui, lazy, **request_)
    assert [same(*pair) for pair in zip(made, expected, strict=True)] == [True] * 3
    # What differs is told by the infotext.
    assert [one.infotext for one in made] == [one.infotext for one in expected]
    assert not same(made[0], made[1])
    assert not same(made[1], made[2])
    assert f"Script: {SCRIPT}" in grid.infotext or f'Script: "{SCRIPT}"' in grid.infotext
    assert "LazyNeg critical step: 3" in grid.infotext
    assert grid.pixels.shape[2] >= 3 * made[0].pixels.shape[2]


def test_more_critical_steps(webui: WebUI) -> None:
    grid, *made = compare(webui, [True, 40, "percent"], "0, 25,60")
    assert len(made) == 6
    for one, step in zip(made[3:], (0, 25, 60), strict=True):
        assert same(one, webui([True, step, "percent"]))
        assert f"LazyNeg critical step: {step}%" in one.infotext
    assert 'LazyNeg compared steps: "0, 25, 60"' in grid.infotext
    assert "LazyNeg compared steps" not in made[3].infotext


def test_img2img(webui: WebUI, init_images: list[str]) -> None:
    request: dict[str, Any] = {"init_images": init_images, "denoising_strength": 0.8, "steps": 10}
    _, *made = compare(webui, [True, 4], **request)
    for one, expected in zip(made, alone(webui, [True, 4], **request), strict=True):
        assert same(one, expected)


def test_masks_come_between_no_pictures(webui: WebUI, inpainting: dict[str, Any]) -> None:
    webui.options(return_mask=True, return_mask_composite=True)
    try:
        _, *made = compare(webui, [True, 4], **inpainting)
    finally:
        webui.options(return_mask=False, return_mask_composite=False)
    assert len(made) == 3
    assert all(same(*pair) for pair in zip(made[1:], alone(webui, [True, 4], **inpainting)[1:]))


def test_a_row_for_each_picture(webui: WebUI) -> None:
    grid, *made = compare(webui, [True, 3], batch_size=2, seed=5)
    expected = alone(webui, [True, 3], batch_size=2, seed=5)
    assert len(made) == 6
    for number, one in enumerate(made):
        row, column = divmod(number, 3)
        assert (one.pixels[0] == expected[column].pixels[row]).all()
        assert f"Seed: {5 + row}" in one.infotext
    assert grid.pixels.shape[1] >= 2 * made[0].pixels.shape[1]


def test_batches(webui: WebUI) -> None:
    _, *made = compare(webui, [True, 3], n_iter=2, seed=5)
    assert len(made) == 6
    assert same(made[5], webui([True, 3], seed=6))


def test_the_box_need_not_be_ticked(webui: WebUI) -> None:
    _, *made = compare(webui, [False, 3])
    assert same(made[2], webui([True, 3]))


def test_a_tag_acts_where_the_settings_do(webui: WebUI) -> None:
    request = {"prompt": "girl eating pizza<lazyneg:2>"}
    _, *made = compare(webui, [True, 5], "6", **request)
    expected = [*alone(webui, [True, 5]), webui([True, 6])]
    expected[2] = webui([True, 2])
    assert [same(*pair) for pair in zip(made, expected, strict=True)] == [True] * 4
    assert ["<lazyneg:2>" in one.infotext for one in made] == [False, False, True, False]


def test_the_negative_prompt_of_a_style_is_left_out_too(webui: WebUI) -> None:
    _, *made = compare(webui, [True, 3], styles=["clean"])
    request = {"negative_prompt": "glasses, hat, lowres, blurry"}
    assert [same(*pair) for pair in zip(made, alone(webui, [True, 3], **request))] == [True] * 3


def test_a_random_seed_is_one_for_all(webui: WebUI) -> None:
    _, *made = compare(webui, [True, 0], seed=-1)
    assert same(made[1], made[2])


@pytest.mark.parametrize("steps", ["five", "1,,2", "-1", "2.5"])
def test_steps_that_cannot_be_read(webui: WebUI, steps: str) -> None:
    made = webui(script_name=SCRIPT, script_args=[steps])
    assert made.pngs == []
    error = made.params["LazyNeg error"]
    assert error.startswith(f"More critical steps is {steps!r}; allowed: whole numbers from 0")
    assert "LazyNeg error" not in webui([True, 3]).params


def test_settings_that_are_refused(webui: WebUI) -> None:
    _, *made = compare(webui, [True, -1])
    assert len(made) == 3
    assert same(made[2], made[1])
    assert 'LazyNeg error: "critical_step is -1' in made[2].infotext


def test_an_interrupt_leaves_what_is_there(webui: WebUI) -> None:
    _, *made = compare(webui, [True, 3], support={"stop": "interrupt", "at_call": 3})
    assert len(made) == 1
    assert same(webui([True, 3]), webui([True, 3]))
