"""The equalities on what people put into a request."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import WebUI, same

STEPS = 8
LONG = ", ".join(f"ugly {number} thing" for number in range(60))
HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "denoising_strength": 0.8,
    "hr_second_pass_steps": 6,
}


@pytest.mark.parametrize(
    ("negative", "request_"),
    [
        ("glasses", {"batch_size": 2}),
        ("glasses", {"batch_size": 2, "n_iter": 2}),
        ("glasses", {"prompt": "a cat AND a dog :0.7 AND a bird", "batch_size": 2}),
        ("glasses", {"prompt": "a [cat:dog:4] with [a hat::3]"}),
        ("((glasses)) [hat] (blurry:1.4)", {}),
        ("glasses BREAK hat", {}),
        (LONG, {}),
        (LONG, {"batch_size": 2, "prompt": LONG}),
        (LONG, {"override_settings": {"pad_cond_uncond": True}}),
        (LONG, {"override_settings": {"pad_cond_uncond_v0": True}}),
        ("glasses", {"override_settings": {"batch_cond_uncond": False}}),
        ("glasses", {"override_settings": {"CLIP_stop_at_last_layers": 2}}),
        ("glasses", {"override_settings": {"emphasis": "No norm"}}),
        ("glasses", {"cfg_scale": 1}),
        ("glasses", {"cfg_scale": 30}),
        ("EasyNegativeV2, extra fingers", {}),
        ("glasses", {"prompt": "girl eating pizza <lora:style:1>"}),
        ("glasses", {"prompt": "girl eating pizza <lora:style:1>", "n_iter": 2}),
        (
            "glasses",
            {"tiling": True, "seed_resize_from_w": 32, "subseed": 5, "subseed_strength": 0.3},
        ),
        ("glasses", {"override_settings": {"skip_early_cond": 0.3}}),
        ("glasses", {"s_min_uncond": 1.0}),
        ("glasses", {"scheduler": "Karras"}),
    ],
)
def test_a_request(webui: WebUI, negative: str, request_: dict[str, Any]) -> None:
    request = {"steps": STEPS, **request_}
    if lacking := set(request.get("override_settings", ())) - webui.known_options:
        pytest.skip(f"{webui.kind.name} has no option {', '.join(lacking)}")
    plain = webui(**request, negative_prompt=negative)
    without = webui(**request, negative_prompt="")
    assert same(webui([True, 0], **request, negative_prompt=negative), plain)
    assert same(webui([True, STEPS], **request, negative_prompt=negative), without)
    lazy = webui([True, 4], **request, negative_prompt=negative)
    reference = {"reference": {"first": {"from_call": 4}}}
    assert same(lazy, webui(**request, negative_prompt=negative, support=reference))
    if request.get("cfg_scale") != 1:
        assert not same(lazy, plain)
        assert not same(lazy, without)


def test_prompt_editing_in_the_negative_prompt(webui: WebUI) -> None:
    lazy = webui([True, 4], negative_prompt="[glasses:hat:5]")
    assert same(lazy, webui(negative_prompt="[[:glasses:3]:hat:5]"))
    assert not same(lazy, webui([True, 4], negative_prompt="glasses"))


def test_styles_in_the_negative_prompt(webui: WebUI) -> None:
    """What a style adds to the negative prompt is delayed with it."""
    styled = webui([True, 4], styles=["clean"], negative_prompt="glasses")
    assert same(styled, webui([True, 4], negative_prompt="glasses, lowres, blurry"))
    assert not same(styled, webui([True, 4], negative_prompt="glasses"))


def test_the_early_prompt(webui: WebUI) -> None:
    lazy = webui([True, 4, "steps", 0, "full", 0, "lowres"], negative_prompt="glasses")
    assert same(lazy, webui(negative_prompt="[lowres:glasses:3]"))
    lazy = webui([True, 4, "steps", 6, "full", 0, "lowres"], negative_prompt="glasses")
    assert same(lazy, webui(negative_prompt="[[lowres:glasses:3]:lowres:5]"))
    editing = webui([True, 6, "steps", 0, "full", 0, "[lowres:ugly:2]"], negative_prompt="glasses")
    assert same(editing, webui(negative_prompt="[[lowres:ugly:2]:glasses:5]"))
    embedding = webui([True, 4, "steps", 0, "full", 0, "EasyNegativeV2"], negative_prompt="glasses")
    assert same(embedding, webui(negative_prompt="[EasyNegativeV2:glasses:3]"))


@pytest.mark.parametrize(
    ("early", "settings"),
    [
        ("EasyNegativeV2", {}),
        ("(lowres:1.3)", {"emphasis": "No norm"}),
        ("lowres, " * 60, {}),
    ],
)
def test_what_the_host_meets_in_the_early_prompt_is_noted_alike_in_all_pictures(
    webui: WebUI, early: str, settings: dict[str, Any]
) -> None:
    request = {"n_iter": 3, "override_settings": settings, "steps": 2}
    texts = webui([True, 1, "steps", 0, "full", 0, early], **request).info["infotexts"]
    assert [text.replace(f"Seed: {seed}", "Seed: 1") for seed, text in enumerate(texts, 1)] == [
        texts[0]
    ] * 3
    # What it notes of the user's own prompts stays. (Once the host has them in its cache: what it
    # notes from there is less.)
    request["prompt"] = f"girl, {early}"
    webui(**request)
    plain = webui(**request).info["infotexts"]
    lazy = webui([True, 1, "steps", 0, "full", 0, early], **request).info["infotexts"]
    for without, with_it in zip(plain, lazy):
        assert set(without.split(", ")) <= set(with_it.split(", "))
    assert webui(**request).info["infotexts"] == plain


@pytest.mark.parametrize(("percent", "step"), [(0, 0), (13, 1), (25, 2), (60, 4), (100, 8)])
def test_percent(webui: WebUI, percent: int, step: int) -> None:
    assert same(webui([True, percent, "percent"]), webui([True, step]))


def test_percent_counts_the_steps_that_really_run(webui: WebUI, init_images: list[str]) -> None:
    request = {"init_images": init_images, "denoising_strength": 0.4, "steps": 10}
    lazy = webui([True, 50, "percent"], **request)
    assert same(lazy, webui([True, 2], **request)), "int(0.4 * 10) + 1 = 5 steps"
    assert not same(lazy, webui([True, 5], **request))


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DDIM", "DPM++ 2M SDE"])
@pytest.mark.parametrize(
    ("lazy", "first", "hires"),
    [
        ([True, 3], 3, 0),
        ([True, 3, "steps", 0, "full"], 3, 0),
        ([True, 3, "steps", 0, "same"], 3, 3),
        ([True, 3, "steps", 0, "own", 5], 3, 5),
        ([True, 0, "steps", 0, "own", 2], 0, 2),
        ([True, 3, "steps", 0, "own"], 3, 0),
        ([True, 50, "percent", 0, "same"], 4, 3),
        ([True, 25, "percent", 0, "own", 70], 2, 4),
        ([True, 100, "percent", 0, "same"], 8, 6),
    ],
)
def test_hires(webui: WebUI, sampler: str, lazy: list[Any], first: int, hires: int) -> None:
    if sampler not in webui.samplers:
        pytest.skip(f"{webui.kind.name} has no sampler {sampler}")
    request = {"steps": STEPS, "sampler_name": sampler, **HIRES}
    calls = 2 if sampler == "Heun" else 1
    reference = {"first": {"from_call": calls * first}, "hires": {"from_call": calls * hires}}
    assert same(webui(lazy, **request), webui(support={"reference": reference}, **request))


def test_hires_stop_step(webui: WebUI) -> None:
    request = {"steps": STEPS, **HIRES}
    window = {"from_call": 2, "to_call": 4}
    reference = {"reference": {"first": window, "hires": window}}
    lazy = webui([True, 2, "steps", 4, "same"], **request)
    assert same(lazy, webui(support=reference, **request))
    reference["reference"]["hires"] = {"from_call": 3}
    own = webui([True, 2, "steps", 4, "own", 3], **request)
    assert same(own, webui(support=reference, **request))
    assert not same(own, lazy)


@pytest.mark.parametrize(("guidance", "hires_guidance"), [(1, 7.5), (7.5, 1), (4, 9)])
def test_hires_with_its_own_guidance(webui: WebUI, guidance: float, hires_guidance: float) -> None:
    """A pass without guidance has no negative prompt on some hosts, and none to delay on any."""
    request = {"steps": STEPS, **HIRES, "cfg_scale": guidance, "hr_cfg": hires_guidance}
    reference = {"first": {"from_call": 3}, "hires": {"from_call": 3}}
    plain = webui(**request)
    lazy = webui([True, 3, "steps", 0, "same"], **request)
    assert same(lazy, webui(support={"reference": reference}, **request))
    guided = guidance if webui.kind.name == "A1111" else max(guidance, hires_guidance)
    assert same(lazy, plain) == (guided == 1)
    never = webui([True, 1000, "steps", 0, "same"], **request)
    assert same(never, webui(negative_prompt="", **request))


def test_hires_with_its_own_prompts_sampler_and_checkpoint(webui: WebUI) -> None:
    request = {
        "steps": STEPS,
        **HIRES,
        "hr_prompt": "girl eating cake",
        "hr_negative_prompt": "balloon",
        "hr_sampler_name": "Heun",
        "hr_checkpoint_name": "sd1b",
    }
    reference = {"reference": {"first": {"from_call": 3}, "hires": {"from_call": 6}}}
    lazy = webui([True, 3, "steps", 0, "same"], **request)
    assert same(lazy, webui(support=reference, **request))


def test_the_hires_checkpoint_of_an_earlier_request_is_forgotten(webui: WebUI) -> None:
    """The empty prompt is always the same text, whatever model a host leaves out of its keys."""
    never = [True, STEPS, "steps", 0, "same"]
    reference = {"first": {"from_call": STEPS}, "hires": {"from_call": STEPS}}
    for prompt, changes in (
        ("girl", {"hr_checkpoint_name": "sd1b"}),
        ("a boy", {}),
        ("a dog", {"hr_checkpoint_name": "sd1b"}),
    ):
        request = {
            "steps": STEPS,
            **HIRES,
            "prompt": prompt,
            "hr_negative_prompt": "hat",
            **changes,
        }
        lazy = webui(never, **request)
        assert same(lazy, webui(support={"reference": reference}, **request)), prompt
        assert not same(lazy, webui(**request))


def test_inpainting(webui: WebUI, inpainting: dict[str, Any]) -> None:
    for checkpoint in ("sd1", "sd1-inpainting"):
        request = {**inpainting, "override_settings": {"sd_model_checkpoint": checkpoint}}
        plain = webui(**request)
        if not same(webui(**request), plain):
            pytest.skip(f"{webui.kind.name} itself does not inpaint the same twice")
        assert same(webui([True, 0], **request), plain)
        assert same(webui([True, 9], **request), webui(**request, negative_prompt=""))
        lazy = webui([True, 4], **request)
        assert same(lazy, webui(**request, negative_prompt="[:glasses, hat:3]"))
        assert not same(lazy, plain)


def test_controlnets_marks_are_kept(webui: WebUI) -> None:
    """All rows stay recognisable, before the critical step as after it."""
    if webui.kind.forge:
        pytest.skip("the ControlNet that is built into the Forge family makes no marks")
    request = {"steps": 4, "batch_size": 2}
    marked = webui([True, 2], support={"mark": True}, **request)
    assert marked.params["Marks"]["signs"] == [[1, 1, -1, -1]] * 4
    assert same(marked, webui([True, 2], **request))


@pytest.mark.parametrize(
    ("lazy", "extra"),
    [
        ([False, 5], 0),
        ([True, 0], 0),
        ([True, 0, "percent"], 0),
        ([True, 5], 1),
        ([True, 0, "steps", 3], 1),
    ],
)
def test_nothing_is_encoded_in_vain(webui: WebUI, lazy: list[Any], extra: int) -> None:
    webui.options(persistent_cond_cache=False)
    try:
        request = {"n_iter": 2, "batch_size": 2, "support": {"log": True}}
        # What was kept before is forgotten only at the end of a request.
        webui()
        usual = webui(**request).params["Encoded"]["texts"]
        assert sorted(usual) == ["girl eating pizza", "glasses, hat"]
        encoded = webui(lazy, **request).params["Encoded"]["texts"]
        assert sorted(encoded) == sorted([*usual, *[""] * extra])
    finally:
        webui.options(persistent_cond_cache=True)


def test_the_empty_prompt_is_cached_as_the_host_caches_its_own(webui: WebUI) -> None:
    webui([True, 5], width=128)
    again = webui([True, 5], width=128, seed=2, support={"log": True})
    assert again.params["Encoded"]["texts"] == []
    again = webui([True, 5], width=192, seed=2, support={"log": True})
    assert sorted(again.params["Encoded"]["texts"]) == ["", "girl eating pizza", "glasses, hat"]
