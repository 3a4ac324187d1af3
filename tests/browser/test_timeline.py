from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.browser.conftest import Page, opened
from tests.host.conftest import WebUI, same
from tests.host.hosts import REFORGE

NEVER = "never acts"
FROM_START = "from the start"


def test_the_timeline_follows_every_field_it_depends_on(page: Page) -> None:
    page.enable()
    assert page.words() == "negative prompt from step 5 of 20"
    page.number("#txt2img_steps", 30)
    page.set(critical_step=6)
    assert page.words() == "negative prompt from step 6 of 30"
    page.set(stop_step=12)
    assert page.words() == "negative prompt from step 6, before step 12 of 30"
    page.set(critical_step=0)
    assert page.words() == "negative prompt before step 12 of 30"
    page.set(critical_step=6, stop_step=0)

    page.hires_fix()
    assert page.track(1).is_visible()
    assert page.words().endswith("Hires pass: negative prompt in all 30 steps")
    page.set(hires="same")
    assert page.words().endswith("Hires pass: negative prompt from step 6 of 30")
    page.number("#txt2img_hires_steps", 12)
    page.set(hires="own", hires_critical_step=3)
    assert page.words().endswith("Hires pass: negative prompt from step 3 of 12")
    page.hires_fix()
    assert not page.track(1).is_visible()
    assert page.words() == "negative prompt from step 6 of 30"


@pytest.mark.parametrize("about", [{"area": 99}, {"adaptive": True}])
def test_a_picture_that_chooses_is_told_from_one_that_does_not(
    page: Page, about: dict[str, Any]
) -> None:
    page.enable()
    page.set(**about)
    assert page.words() == "negative prompt from step 5 of 20, where needed"
    box = page.track().bounding_box()
    tip = page.track().locator(".lazyneg-tip")
    page.raw.mouse.move(box["x"] + box["width"] * 6.5 / 20, box["y"] + 8)
    assert tip.inner_text() == "step 6 of 20 (30 %): negative prompt where needed"
    page.set(critical_step=0)
    assert page.words() == "negative prompt in all 20 steps, where needed"
    assert FROM_START not in page.warnings()
    page.set(critical_step=20)
    assert page.words() == "no negative prompt in 20 steps"
    page.set(critical_step=0, area=100, adaptive=False)
    assert page.words() == "negative prompt in all 20 steps"
    assert FROM_START in page.warnings()


def test_the_parts_are_as_long_as_their_steps(page: Page) -> None:
    page.enable()
    page.set(stop_step=15)
    track = page.track().bounding_box()
    parts = [
        page.track().locator(f"> div:nth-child({i})").bounding_box()["width"] for i in (1, 2, 3)
    ]
    assert parts == [pytest.approx(track["width"] * n / 20, abs=2) for n in (5, 10, 5)]
    # Not by colour alone: one part has a pattern.
    drawn = "node => getComputedStyle(node).backgroundImage"
    assert "repeating-linear-gradient" in page.inside("txt2img", ".lazyneg-empty").first.evaluate(
        drawn
    )
    assert page.inside("txt2img", ".lazyneg-negative").first.evaluate(drawn) == "none"


def test_hovering_tells_about_a_step(page: Page) -> None:
    page.enable()
    box = page.track().bounding_box()
    tip = page.track().locator(".lazyneg-tip")
    assert not tip.is_visible()
    for step, words in (
        (6, "step 6 of 20 (30 %): negative prompt"),
        (4, "step 4 of 20 (20 %): empty prompt"),
    ):
        page.raw.mouse.move(box["x"] + box["width"] * (step + 0.5) / 20, box["y"] + 8)
        assert tip.inner_text() == words
    page.set(early_prompt="blurry")
    page.raw.mouse.move(box["x"] + box["width"] * 0.5 / 20, box["y"] + 9)
    assert tip.inner_text() == "step 0 of 20 (0 %): early negative prompt"
    page.raw.mouse.move(0, 0)
    assert not tip.is_visible()


def drag(page: Page, row: int, start: float, end: float) -> None:
    box = page.track(row).bounding_box()
    page.raw.mouse.move(box["x"] + box["width"] * start, box["y"] + 8)
    page.raw.mouse.down()
    page.raw.mouse.move(box["x"] + box["width"] * (start + end) / 2, box["y"] + 8)
    page.raw.mouse.move(box["x"] + box["width"] * end, box["y"] + 8)
    page.raw.mouse.up()
    page.settle()


def test_dragging_sets_the_critical_step(page: Page) -> None:
    page.enable()
    drag(page, 0, 0.25, 0.6)
    assert page.values()["critical_step"] == 12
    drag(page, 0, 0.6, 1.5)
    assert page.values()["critical_step"] == 20
    page.set(critical_step=2, stop_step=10)
    drag(page, 0, 0.1, 0.9)
    assert page.values()["critical_step"] == 9, "a critical step has to stay before the stop step"
    page.set(stop_step=0, unit="percent")
    drag(page, 0, 0.1, 0.3)
    assert page.values()["critical_step"] == 30

    page.hires_fix()
    drag(page, 1, 0.1, 0.5)
    assert page.values()["hires_critical_step"] == 0, "only a hires step of its own can be dragged"
    page.set(hires="own")
    drag(page, 1, 0.0, 0.5)
    assert page.values()["hires_critical_step"] == 50


def test_dragging_sets_the_stop_step(page: Page) -> None:
    page.enable()
    drag(page, 0, 0.999, 0.75)
    assert page.values()["stop_step"] == 15, "at the end of the run lies what never stops"
    drag(page, 0, 0.74, 0.1)
    assert page.values()["stop_step"] == 6, "a stop step has to stay after the critical step"
    drag(page, 0, 0.9, 0.5)
    shown = page.values()
    assert (shown["critical_step"], shown["stop_step"]) == (5, 10), "the nearer end is meant"
    page.set(unit="percent")
    drag(page, 0, 0.5, 0.65)
    assert page.values()["stop_step"] == 65
    drag(page, 0, 0.65, 1.2)
    assert page.values()["stop_step"] == 0
    page.set(unit="steps", critical_step=20)
    drag(page, 0, 0.999, 0.5)
    shown = page.values()
    assert (shown["critical_step"], shown["stop_step"]) == (10, 0), "both ends lie there"


def test_the_timeline_works_by_keyboard_and_screen_reader(page: Page) -> None:
    page.enable()
    critical, stop = (page.track().locator("[role=slider]").nth(i) for i in (0, 1))
    critical.focus()
    for key, step in (("ArrowRight", 6), ("ArrowDown", 5), ("PageUp", 7), ("Home", 0), ("End", 20)):
        page.raw.keyboard.press(key)
        page.settle(100)
        assert page.values()["critical_step"] == step
        assert critical.get_attribute("aria-valuenow") == str(step)
    page.raw.keyboard.press("PageDown")
    page.settle(100)
    assert page.track().get_attribute("role") == "group"
    assert page.track().get_attribute("aria-label") == "First pass"
    assert critical.get_attribute("aria-label") == "Critical step"
    assert critical.get_attribute("aria-valuemax") == "20"
    assert critical.get_attribute("aria-valuetext") == "negative prompt from step 18 of 20"
    assert page.inside("txt2img", "[role=status]").count() == 1

    page.set(critical_step=3)
    stop.focus()
    for key, step in (("ArrowLeft", 19), ("PageDown", 17), ("Home", 4), ("End", 0)):
        page.raw.keyboard.press(key)
        page.settle(100)
        assert page.values()["stop_step"] == step
        assert stop.get_attribute("aria-valuenow") == str(step or 20)
    assert stop.get_attribute("aria-label") == "Stop step"

    page.hires_fix()
    assert page.track(1).get_attribute("role") == "img"
    assert not page.track(1).locator("[role=slider]").is_visible()
    assert page.track(1).get_attribute("aria-description") == "negative prompt in all 20 steps"
    page.set(hires="own")
    assert (
        page.track(1).locator("[role=slider]").get_attribute("aria-label") == "Hires critical step"
    )


def test_warnings_in_words(page: Page) -> None:
    page.enable()
    assert "field is empty" in page.warnings()
    page.text("#txt2img_neg_prompt", "ugly")
    page.settle()
    assert page.warnings() == ""
    page.set(critical_step=20)
    assert NEVER in page.warnings()
    page.set(critical_step=0)
    assert FROM_START in page.warnings()
    page.set(critical_step=9, stop_step=4)
    assert "stop step" in page.warnings()
    page.set(stop_step=0)
    page.number("#txt2img_cfg_scale", 1)
    page.settle()
    assert "guidance" in page.warnings()
    page.number("#txt2img_cfg_scale", 7)
    page.text("#txt2img_prompt", "a cat <lazyneg:3>")
    page.settle()
    assert "tag" in page.warnings()
    page.own("txt2img", "enabled-visible-checkbox").click()
    page.settle()
    assert "tag" in page.warnings(), "it acts also when the accordion is off"
    page.text("#txt2img_prompt", "a cat")
    page.settle()
    assert page.warnings().startswith("Off.")


def test_the_hires_pass_may_have_a_guidance_of_its_own(page: Page, server: WebUI) -> None:
    page.enable()
    page.text("#txt2img_neg_prompt", "ugly")
    page.hires_fix()
    if not page.raw.locator("#txt2img_hr_cfg").count():
        pytest.skip(f"{server.kind.name} knows one guidance for both passes")
    everywhere, first, hires = "The guidance (CFG", "first pass (CFG", "(Hires CFG"
    for guidance, hires_guidance, warned in (
        (7, 7, None),
        (1, 7, first),
        (7, 1, hires),
        (1, 1, everywhere),
    ):
        page.number("#txt2img_cfg_scale", guidance)
        page.number("#txt2img_hr_cfg", hires_guidance)
        page.settle()
        told = [text for text in (everywhere, first, hires) if text in page.warnings()]
        assert told == ([warned] if warned else [])
    if server.kind is REFORGE:
        # There 0 means the guidance of the first pass.
        page.number("#txt2img_hr_cfg", 0)
        page.settle()
        assert everywhere in page.warnings()
    page.number("#txt2img_cfg_scale", 7)
    page.number("#txt2img_hr_cfg", 1)
    page.hires_fix()
    assert page.warnings() == "", "there is no hires pass"


def test_switching_the_unit_converts_the_values_and_the_range(page: Page) -> None:
    page.enable()
    page.set(critical_step=6, stop_step=15, hires_critical_step=4)
    words = page.words()
    page.set(unit="percent")
    shown = page.values()
    assert (shown["critical_step"], shown["stop_step"], shown["hires_critical_step"]) == (
        30,
        75,
        20,
    )
    assert page.words() == words
    page.set(critical_step=120)
    assert page.values()["critical_step"] == 100
    page.set(critical_step=30, unit="steps")
    shown = page.values()
    assert (shown["critical_step"], shown["stop_step"], shown["hires_critical_step"]) == (6, 15, 4)
    for kind in ("number", "range"):
        field = page.own("txt2img", "critical_step", f"input[type={kind}]")
        assert field.get_attribute("max") == "150"


@pytest.mark.parametrize("strength", [0.05, 0.5, 0.55, 0.75, 1.0])
def test_img2img_counts_the_steps_that_really_run(
    page: Page, server: WebUI, strength: float
) -> None:
    page.to_tab("img2img")
    page.enable("img2img")
    page.number("#img2img_steps", 8)
    page.number("#img2img_denoising_strength", strength)
    page.settle()
    slider = page.track(tab="img2img").locator("[role=slider]").first
    steps = int(slider.get_attribute("aria-valuemax"))

    about: dict[str, Any] = {
        "init_images": [base64.b64encode(server(prompt="a balloon").pngs[0]).decode()],
        "denoising_strength": strength,
        "sampler_name": "Euler",
        "steps": 8,
    }
    empty = server(negative_prompt="", **about)
    assert same(server(lazy=[True, steps], **about), empty)
    assert not same(server(lazy=[True, steps - 1], **about), empty)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_timeline_fits_a_phone(browser: Any, server: WebUI, theme: str) -> None:
    with opened(
        browser, server, theme=theme, viewport={"width": 360, "height": 740}, has_touch=True
    ) as page:
        page.enable()
        page.hires_fix()
        for row in (0, 1):
            box = page.track(row).bounding_box()
            assert 200 < box["width"] < 360
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        for share in (0.01, 0.99):
            box = page.track().bounding_box()
            page.raw.mouse.move(box["x"] + box["width"] * share, box["y"] + 8)
            tip = page.track().locator(".lazyneg-tip").bounding_box()
            assert tip["x"] >= 0
            assert tip["x"] + tip["width"] <= 360


def test_the_page_gets_one_name_and_no_work_per_update(browser: Any, server: WebUI) -> None:
    names = "Object.getOwnPropertyNames(window)"
    hooks = (
        "[uiUpdateCallbacks, uiAfterUpdateCallbacks, uiTabChangeCallbacks, optionsChangedCallbacks]"
        ".map((callbacks) => callbacks.length)"
    )
    with opened(browser, server) as page:
        with_it = page.raw.evaluate(f"[{names}, {hooks}]")
        page.enable()
        # Drawing does not wake those who watch the page either.
        page.raw.evaluate(
            "window.woken = 0; new MutationObserver((changes) => { woken += changes.length; })"
            ".observe(document.querySelector('.lazyneg-timeline'), "
            "{childList: true, subtree: true})"
        )
        page.set(critical_step=9)
        drag(page, 0, 0.4, 0.6)
        assert page.raw.evaluate("woken") == 0
        page.raw.route("**/lazyneg.js*", lambda route: route.abort())
        page.load()
        without = page.raw.evaluate(f"[{names}, {hooks}]")
    assert set(with_it[0]) - set(without[0]) == {"lazyneg"}
    assert with_it[1] == without[1]
