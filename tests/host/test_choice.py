"""Area and adaptive: the negative prompt acts where, and while, there is something to remove."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from .conftest import Answer, WebUI, same
from .hosts import REFORGE
from .test_requests import HIRES, LONG, STEPS

REFINER = {
    "refiner_checkpoint": "sd1b",
    "refiner_switch_at": 0.5,
    "override_settings": {"sd_model_checkpoint": "sd1"},
}
NEVER = ""
"""A prompt of which nothing can hold the negative's direction."""
ALWAYS = "girl eating cake"
"""A negative prompt that the prompt's own push holds most of."""


def lazy(critical_step: int = 0, **about: object) -> list[dict[str, object]]:
    return [{"enabled": True, "critical_step": critical_step, **about}]


def apart(left: Answer, right: Answer) -> int:
    """How far two answers' pixels are apart at most: rows of another batch round otherwise."""
    return int(np.abs(left.pixels.astype(int) - right.pixels).max())


def acted(answer: Answer, key: str = "LazyNeg acted") -> list[str]:
    """What the infotexts of an answer's pictures say."""
    texts = answer.info["infotexts"][answer.info["index_of_first_image"] :]
    found = [re.search(rf'{key}: (?:"([^"]*)"|([^,]*))', text) for text in texts]
    return [match[1] or match[2] if match else "nothing" for match in found]


def spans(calls: list[int]) -> str:
    """The same of the calls that the reference acted in."""
    known = set(calls)
    first = [call for call in sorted(known) if call - 1 not in known]
    last = [call for call in sorted(known) if call + 1 not in known]
    told = [f"{a}-{b}" if a < b else str(a) for a, b in zip(first, last)]
    return ", ".join(told) or "never"


def rows(answer: Answer, name: str = "first") -> list[int]:
    """How many rows ran in each denoiser call of a pass."""
    return [sum(call) for call in answer.params["Rows"][name]]


@pytest.mark.parametrize("about", [{}, {"critical_step": 3}, {"critical_step": 3, "stop_step": 6}])
def test_without_them_nothing_is_run_besides(webui: WebUI, about: dict[str, int]) -> None:
    plain = webui([{"enabled": True, "critical_step": 0, **about}], support={"rows": True})
    off = {"area": 100, "adaptive": False}
    written = webui([{"enabled": True, "critical_step": 0, **about, **off}], support={"rows": True})
    assert same(written, plain)
    assert written.infotext == plain.infotext
    assert rows(written) == [2] * STEPS


@pytest.mark.parametrize(
    ("negative", "request_"),
    [
        ("glasses", {}),
        ("glasses", {"batch_size": 2}),
        ("glasses", {"prompt": "a cat AND a dog :0.7 AND a bird"}),
        ("glasses", {"prompt": "a [cat:dog:4] with [a hat::3]"}),
        ("[glasses:hat:4]", {}),
        (LONG, {}),
        (LONG, {"batch_size": 2, "prompt": LONG}),
        (LONG, {"override_settings": {"pad_cond_uncond": True}}),
        (LONG, {"override_settings": {"pad_cond_uncond_v0": True}}),
        ("glasses", {"override_settings": {"batch_cond_uncond": False}, "batch_size": 2}),
        ("glasses", {"prompt": "girl eating pizza <lora:style:1>"}),
        ("glasses", {"cfg_scale": 2}),
        ("glasses", HIRES),
    ],
)
@pytest.mark.parametrize(("area", "adaptive"), [(15, False), (100, True), (30, True)])
def test_a_request(
    webui: WebUI, negative: str, request_: dict[str, Any], area: int, adaptive: bool
) -> None:
    """As from three guided calls each, outside of the host's denoiser."""
    request = {"steps": STEPS, "negative_prompt": negative, **request_}
    if lacking := set(request.get("override_settings", ())) - webui.known_options:
        pytest.skip(f"{webui.kind.name} has no option {', '.join(lacking)}")
    about = {"area": area, "adaptive": adaptive}
    made = webui(lazy(2, hires="same", **about), **request, support={"rows": True})
    reference = webui(**request, support={"choice": {**about, "from_call": 2}})
    assert apart(made, reference) <= 1
    if area < 100:
        assert not same(made, webui(lazy(2, hires="same"), **request))
    for name, asked in reference.params["Asked"].items():
        ran = rows(made, name)
        own = ran[0]
        assert ran == [own] * 2 + [own + pictures for pictures in asked]
        key = "LazyNeg acted" if name == "first" else "LazyNeg hires acted"
        told = [spans(calls) for calls in reference.params["Choice"][name]]
        assert made.params.get(key) == (told if adaptive else None)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"batch_size": 2, "n_iter": 2},
        {"sampler_name": "Heun"},
        {"sampler_name": "DDIM"},
        {"sampler_name": "DPM++ 2M SDE"},
        {"negative_prompt": LONG},
        HIRES,
        REFINER,
        {"s_min_uncond": 1.0},
        {"override_settings": {"skip_early_cond": 0.3}},
        {"override_settings": {"batch_cond_uncond": False}},
    ],
)
def test_what_never_shows_is_left_alone(webui: WebUI, request_: dict[str, Any]) -> None:
    request = {"steps": STEPS, "prompt": NEVER, **request_}
    if lacking := set(request.get("override_settings", ())) - webui.known_options:
        pytest.skip(f"{webui.kind.name} has no option {', '.join(lacking)}")
    # Neo's first switch to a refiner is not as those that follow.
    plain = webui(**request)
    made = webui(lazy(adaptive=True), **request)
    assert set(acted(made)) == {"never"}
    assert same(made, webui(**{**request, "negative_prompt": ""}))
    assert not same(made, plain)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"batch_size": 2, "n_iter": 2},
        {"sampler_name": "Heun"},
        {"sampler_name": "DPM++ 2M"},
        HIRES,
        REFINER,
    ],
)
def test_what_always_shows_is_acted_against_in_all_steps(
    webui: WebUI, request_: dict[str, Any]
) -> None:
    request = {"steps": STEPS, "negative_prompt": ALWAYS, **request_}
    # Neo's first switch to a refiner is not as those that follow.
    webui(**request)
    made = webui(lazy(adaptive=True), **request)
    assert set(acted(made)) == {f"0-{STEPS - 1}"}
    assert apart(made, webui(**request)) <= 1
    assert not same(made, webui(**{**request, "negative_prompt": ""}))


@pytest.mark.usefixtures("decoded")  # a grid of the smallest pictures has no place for its legend
def test_the_batch_is_what_its_pictures_are_alone(webui: WebUI) -> None:
    """Each has evidence of its own, and a window of its own by a tag."""
    prompt = "girl eating pizza"
    about = lazy(1, adaptive=True, area=30)
    together = webui(
        about,
        support={"rows": True},
        prompt=f"{prompt}|<lazyneg:3:6>",
        negative_prompt=ALWAYS,
        batch_size=2,
        script_name="prompt matrix",
        script_args=[False, True, "positive", "comma", 0],
    )
    # The first is the grid.
    assert len(together.pngs) == 3
    pictures = together.pixels_of([1, 2])
    asked = np.zeros(STEPS, int)
    for number, tag in enumerate(("", ", <lazyneg:3:6>")):
        request = {"prompt": prompt + tag, "negative_prompt": ALWAYS, "seed": 1 + number}
        alone = webui(about, **request, support={"rows": True})
        asked += np.array(rows(alone)) - 2
        assert np.abs(alone.pixels[0].astype(int) - pictures[number]).max() <= 1
        assert acted(alone) == [acted(together)[number]]
    assert len({*acted(together)}) == 2
    assert rows(together) == [*(4 + asked)]
    assert asked.any()


@pytest.mark.usefixtures("grids")
def test_several_batches_and_their_grid(webui: WebUI) -> None:
    """Each picture tells its own steps, and the grid none."""
    request = {"batch_size": 2, "n_iter": 2, "negative_prompt": ALWAYS, "save_images": True}
    about = lazy(1, adaptive=True, area=30)
    tags = ["", "<lazyneg:2>", "<lazyneg:3:6>", "<lazyneg:5>"]
    made = webui(about, **request, support={"tags": tags})
    assert made.info["index_of_first_image"] == 1
    if webui.kind != REFORGE:  # where its text is that of the first picture
        assert "LazyNeg acted" not in made.info["infotexts"][0]
    told = ["1-7", "2-7", "3-5", "5-7"]
    assert made.params["LazyNeg acted"] == told
    # Neo answers with some of the pictures only: their seeds tell which.
    texts = made.info["infotexts"][1 : len(made.pngs)]
    first, *_ = numbers = [int(re.search(r"Seed: (\d+)", text)[1]) for text in texts]  # type: ignore[index]
    assert acted(made) == [told[number - first] for number in numbers]


@pytest.fixture
def grids(webui: WebUI) -> Iterator[None]:
    webui.options(return_grid=True)
    yield
    webui.options(return_grid=False)


def test_img2img(webui: WebUI, init_images: list[str]) -> None:
    request: dict[str, Any] = {
        "init_images": init_images,
        "denoising_strength": 0.7,
        "steps": 10,
        "negative_prompt": "glasses",
    }
    made = webui(lazy(2, area=20, adaptive=True), **request)
    choice = {"area": 20, "adaptive": True, "from_call": 2}
    reference = webui(**request, support={"choice": choice})
    assert apart(made, reference) <= 1
    assert acted(made) == [spans(reference.params["Choice"]["first"][0])]


@pytest.mark.parametrize("checkpoint", ["sd1", "sd1-inpainting"])
def test_inpainting(webui: WebUI, inpainting: dict[str, Any], checkpoint: str) -> None:
    request = {**inpainting, "override_settings": {"sd_model_checkpoint": checkpoint}}
    plain = webui(**request, negative_prompt=ALWAYS)
    if not same(webui(**request, negative_prompt=ALWAYS), plain):
        pytest.skip(f"{webui.kind.name} itself does not inpaint the same twice")
    always = webui(lazy(adaptive=True), **request, negative_prompt=ALWAYS)
    assert acted(always) == ["0-8"]
    assert apart(always, plain) <= 1
    assert apart(always, webui(**request, negative_prompt="")) > 1
    never = webui(lazy(adaptive=True), **request, prompt=NEVER)
    assert acted(never) == ["never"]
    assert same(never, webui(**request, prompt=NEVER, negative_prompt=""))
    assert not same(never, webui(**request, prompt=NEVER))


@pytest.mark.parametrize("about", [{"area": 20}, {"adaptive": True}])
@pytest.mark.parametrize("critical_step", [0, 3])
def test_a_model_that_edits_by_instructions_is_refused(
    webui: WebUI, init_images: list[str], about: dict[str, object], critical_step: int
) -> None:
    """Its guidance is between three outputs: all of the extension stays off, and says so."""
    if "sd1-edit" not in webui.kind.checkpoints:
        pytest.skip(f"{webui.kind.name} itself fails on such a model, in its first convolution")
    request: dict[str, Any] = {
        "init_images": init_images,
        "image_cfg_scale": 1.5,
        "steps": 10,
        "override_settings": {"sd_model_checkpoint": "sd1-edit"},
    }
    plain = webui(**request, support={"rows": True})
    support = {"rows": True, "comments": True}
    refused = webui(lazy(critical_step, **about), **request, support=support)
    assert same(refused, plain)
    assert rows(refused) == rows(plain)
    reason = (
        "area and adaptive cannot be had here, as a model that edits pictures by instructions is "
        "guided three ways"
    )
    assert refused.params["LazyNeg error"] == reason
    assert refused.params["Comments"] == [f"Lazy Negative is off for this picture: {reason}"]
    assert "LazyNeg critical step" not in refused.infotext
    # Without them it is served, and with them where the picture has no guidance of its own.
    assert not same(webui(lazy(3), **request), plain)
    request["image_cfg_scale"] = 1
    made = webui(lazy(3, **about), **request)
    choice = {"area": 100, "adaptive": False, **about, "from_call": 3}
    assert apart(made, webui(**request, support={"choice": choice})) <= 1


@pytest.mark.parametrize("settings", [{"s_min_uncond": 3.0}, {"skip_early_cond": 0.3}])
def test_unguided_calls_cost_nothing_more(webui: WebUI, settings: dict[str, float]) -> None:
    request = {"steps": STEPS, "negative_prompt": ALWAYS, "override_settings": settings}
    plain = rows(webui(**request, support={"rows": True}))
    made = webui(lazy(area=20, adaptive=True), **request, support={"rows": True})
    assert set(plain) == {1, 2}
    assert rows(made) == [ran + (ran == 2) for ran in plain]
    assert apart(webui(lazy(adaptive=True), **request), webui(**request)) <= 1


def test_without_guidance_nothing_acts(webui: WebUI) -> None:
    request = {"cfg_scale": 1, "negative_prompt": "glasses"}
    plain = webui(**request)
    for about in ({"area": 20}, {"adaptive": True}):
        assert apart(webui(lazy(**about), **request), plain) <= 1


def test_the_early_prompt_takes_the_place_of_the_empty_one(webui: WebUI) -> None:
    about = {"early_prompt": "girl eating pizza", "adaptive": True}
    made = webui(lazy(2, **about), prompt="girl eating pizza")
    assert acted(made) == ["never"]
    assert same(made, webui(prompt="girl eating pizza", negative_prompt="girl eating pizza"))


@pytest.mark.parametrize(("area", "adaptive"), [(15, False), (100, True), (30, True)])
@pytest.mark.usefixtures("decoded")
def test_an_infotext_sent_back_makes_the_same_picture(
    webui: WebUI, area: int, adaptive: bool
) -> None:
    first = webui(lazy(1, area=area, adaptive=adaptive, hires="same"), **HIRES)
    for key, text in (("area", f"{area}%"), ("adaptive", adaptive)):
        assert (f"LazyNeg {key}: {text}" in first.infotext) == (text not in ("100%", False))
    again = webui.again(first.infotext)
    assert same(again, first)
    for key in ("LazyNeg acted", "LazyNeg hires acted"):
        assert (key in first.infotext) == adaptive
        if adaptive:
            assert acted(again, key) == acted(first, key)


def test_another_extensions_guidance_is_kept(webui: WebUI) -> None:
    """What makes another picture of the same outputs makes it of ours."""
    name = "dynamicthresholding"
    scripts = [one for one in webui.get("script-info") if one["name"].startswith(name)]
    if not scripts:
        pytest.skip(f"{webui.kind.name} brings no such extension")
    script = scripts[0]
    args = [True, *(argument["value"] for argument in script["args"][1:])]

    def made(about: Any = None, **request: Any) -> Answer:
        return webui(about, alwayson_scripts={script["name"]: {"args": args}}, **request)

    plain = made(negative_prompt=ALWAYS)
    assert not same(plain, webui(negative_prompt=ALWAYS))
    always = made(lazy(adaptive=True), negative_prompt=ALWAYS)
    assert acted(always) == [f"0-{STEPS - 1}"]
    assert apart(always, plain) <= 1
    never = made(lazy(adaptive=True), prompt=NEVER)
    assert acted(never) == ["never"]
    assert same(never, made(prompt=NEVER, negative_prompt=""))


def test_the_areas_differ(webui: WebUI) -> None:
    # Of 64 positions.
    made = [webui(lazy(area=area)) for area in (1, 10, 50, 98, 100)]
    assert not any(same(*pair) for pair in itertools.combinations(made, 2))


def test_they_come_by_position_too(webui: WebUI) -> None:
    by_name = webui(lazy(3, area=20, adaptive=True))
    by_position = webui([True, 3, "steps", 0, "full", 0, "", 20, True])
    assert same(by_position, by_name)
    assert by_position.infotext == by_name.infotext
