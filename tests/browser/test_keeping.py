"""Every way in which the host keeps settings brings all of ours back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lazyneg.core.settings import Settings
from tests.browser.conftest import NAMES, Page
from tests.host.conftest import WebUI

DEFAULT = {name: getattr(Settings(), name) for name in ("enabled", *NAMES)}
CHOSEN = {
    "enabled": True,
    "critical_step": 20,
    "unit": "percent",
    "stop_step": 80,
    "hires": "own",
    "hires_critical_step": 30,
    "early_prompt": 'blurry, "low" quality: 1',
    "area": 40,
    "adaptive": True,
}
STEPS = "Steps: 10, Sampler: Euler, CFG scale: 7, Seed: 3, Size: 64x64"


def infotext(settings: dict[str, Any]) -> str:
    keys = Settings.parse(settings).infotext().items()
    # As the host writes it.
    return ", ".join([STEPS, *(f"{key}: {quoted(value)}" for key, value in keys)])


def quoted(value: str) -> str:
    return '"' + value.replace('"', '\\"') + '"' if set(value) & set(',:"') else value


def paste(page: Page, text: str, tab: str = "txt2img") -> None:
    page.text(f"#{tab}_prompt", f"a cat\nNegative prompt: ugly\n{text}")
    page.paste(tab)


def choose(page: Page, tab: str = "txt2img") -> None:
    page.text(f"#{tab}_prompt", "a cat")
    page.text(f"#{tab}_neg_prompt", "ugly")
    page.number(f"#{tab}_steps", 10)
    page.enable(tab)
    if tab == "txt2img":
        page.hires_fix()
    # The unit first: it converts what is there.
    page.set(tab, **{name: CHOSEN[name] for name in ("unit", *NAMES)})
    page.expect(CHOSEN, tab)


def test_a_pasted_infotext_sets_everything_and_a_bare_one_switches_off(page: Page) -> None:
    paste(page, infotext(CHOSEN))
    page.expect(CHOSEN)
    assert page.own("txt2img", "critical_step").is_visible()
    assert page.words() == "negative prompt from step 2, before step 8 of 10, where needed"
    maximum = page.own("txt2img", "critical_step", "input[type=range]").get_attribute("max")
    assert maximum == "100"

    paste(page, infotext({"enabled": True, "critical_step": 7}))
    page.expect({**DEFAULT, "enabled": True, "critical_step": 7})
    paste(page, infotext({"enabled": True, "critical_step": 500}))
    assert page.values()["critical_step"] == 500

    paste(page, STEPS)
    assert page.values()["enabled"] is False


def test_the_arrow_button_brings_back_the_last_picture(page: Page) -> None:
    choose(page)
    page.generate()
    assert "LazyNeg critical step: 20%" in page.infotext()
    page.load()
    page.expect(DEFAULT)
    page.paste()
    page.expect(CHOSEN)


def test_sending_a_picture_to_the_other_tab_takes_everything_along(page: Page) -> None:
    choose(page)
    page.generate()
    for button, tab in (("img2img", "img2img"), ("inpaint", "img2img")):
        page.to_tab("txt2img")
        page.raw.click(f"#txt2img_send_to_{button}")
        page.settle(1500)
        page.expect(CHOSEN, tab)
        assert page.own(tab, "critical_step").is_visible()
        page.own(tab, "enabled-visible-checkbox").click()
        page.set(tab, critical_step=1)


def test_png_info_sends_everything(page: Page, server: WebUI, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    made = server(lazy=[CHOSEN], enable_hr=True, hr_scale=1, denoising_strength=0.7)
    picture.write_bytes(made.pngs[0])
    page.to_tab("PNG Info")
    page.raw.set_input_files("#pnginfo_image input[type=file]", picture)
    page.raw.wait_for_selector("#tab_pnginfo >> text=LazyNeg critical step")
    page.raw.click("#tab_pnginfo button:has-text('Send to txt2img')")
    page.settle(1500)
    page.expect(CHOSEN)
    page.to_tab("PNG Info")
    page.raw.click("#tab_pnginfo button:has-text('Send to img2img')")
    page.settle(1500)
    page.expect(CHOSEN, "img2img")


def test_a_picture_from_the_page_is_made_again_from_its_infotext(page: Page) -> None:
    choose(page)
    page.set(unit="steps")
    page.set(critical_step=3, stop_step=7, hires="same", hires_critical_step=0, early_prompt="")
    page.hires_fix()
    page.generate()
    picture = shown(page)
    page.load()
    page.text("#txt2img_prompt", picture.info["parameters"])
    page.paste()
    page.generate()
    again = shown(page)
    assert again.info["parameters"] == picture.info["parameters"]
    assert again.tobytes() == picture.tobytes()


def shown(page: Page) -> Any:
    """The picture that the page shows."""
    source = page.raw.locator("#txt2img_gallery img").first.get_attribute("src")
    return Image.open(io.BytesIO(page.raw.request.get(source).body()))


def test_styles_leave_the_settings_alone(page: Page, server: WebUI) -> None:
    choose(page)
    page.text("#txt2img_neg_prompt", "")
    page.settle()
    assert "field is empty" in page.warnings()
    page.raw.click("#txt2img_styles_row input")
    page.raw.locator("#txt2img_styles_row ul li", has_text="art school").click()
    page.raw.keyboard.press("Escape")
    page.raw.locator("#txt2img_styles_row input").blur()
    page.settle()
    assert page.warnings() == "", "the style brings a negative prompt"
    page.raw.click("#txt2img_style_apply")
    page.settle(1000)
    assert page.raw.locator("#txt2img_neg_prompt textarea").input_value() == "low contrast"
    page.expect(CHOSEN)
    assert page.warnings() == ""


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_the_defaults_page_keeps_everything_over_a_ui_reload(
    page: Page, server: WebUI, tab: str
) -> None:
    page.to_tab(tab)
    chosen = CHOSEN
    if tab == "txt2img":
        choose(page)
    else:
        # There is no hires pass in img2img.
        chosen = {name: (CHOSEN if visible(tab, name) else DEFAULT)[name] for name in CHOSEN}
        page.enable(tab)
        names = [name for name in ("unit", *NAMES) if visible(tab, name)]
        page.set(tab, **{name: chosen[name] for name in names})
    page.expect(chosen, tab)
    # The page saves the defaults of all controls, not ours alone.
    saved = defaults(server)
    before = saved.read_bytes()
    kept = server.kind.keeps_accordions
    assert ("txt2img/Hires. fix/value" in json.loads(before)) == kept, "the host's own accordion"
    save_defaults(page)
    try:
        page.reload_ui()
        page.expect({**chosen, "enabled": kept}, tab)
        page.to_tab(tab)
        if not kept:
            page.enable(tab)
        page.own(tab, "critical_step").wait_for(state="visible")
        # Right after the reload the timeline is there and right.
        assert "from step" in page.words(tab)
        maximum = page.own(tab, "critical_step", "input[type=range]").get_attribute("max")
        assert maximum == "100"
    finally:
        saved.write_bytes(before)
        page.reload_ui()
    page.expect(DEFAULT, tab)


def visible(tab: str, name: str) -> bool:
    return tab == "txt2img" or not name.startswith("hires")


def defaults(server: WebUI) -> Path:
    return server.log.parent / "ui-config.json"


def save_defaults(page: Page) -> None:
    page.to_tab("Settings")
    # Forge has pages of "UI defaults" too.
    page.raw.click("#settings > .tab-nav > button:text-is('Defaults')")
    page.raw.click("#ui_defaults_apply")
    page.raw.wait_for_selector("text=Wrote")


def test_the_settings_page_holds_defaults_for_new_sessions(page: Page, server: WebUI) -> None:
    options = {
        f"lazyneg_default_{name}": value for name, value in CHOSEN.items() if name != "enabled"
    }
    server.options(**options, lazyneg_open=True)
    try:
        page.reload_ui()
        for tab in ("txt2img", "img2img"):
            page.expect({**CHOSEN, "enabled": False}, tab)
            page.to_tab(tab)
            assert page.own(tab, "critical_step").is_visible(), "open, though it is off"
        page.to_tab("txt2img")
        page.set(critical_step=33)
        save_defaults(page)
        page.reload_ui()
        assert page.values()["critical_step"] == 33, "the Defaults page had the last word"
        assert page.raw.evaluate("opts.lazyneg_default_critical_step") == 33
    finally:
        server.options(
            **{f"lazyneg_default_{name}": DEFAULT[name] for name in CHOSEN}, lazyneg_open=False
        )
        page.reload_ui()
    for tab in ("txt2img", "img2img"):
        page.expect(DEFAULT, tab)


def test_settings_that_change_nothing_can_stay_out_of_the_infotext(server: WebUI) -> None:
    assert server(lazy=[True, 0]).params["LazyNeg critical step"] == "0"
    server.options(lazyneg_infotext_at_zero=False)
    try:
        assert not any("LazyNeg" in key for key in server(lazy=[True, 0]).params)
        assert server(lazy=[True, 0, "steps", 5]).params["LazyNeg stop step"] == "5"
    finally:
        server.options(lazyneg_infotext_at_zero=True)
