from __future__ import annotations

import io

from PIL import Image

from lazyneg.core.settings import BY_NAME
from tests.browser.conftest import Page
from tests.host.conftest import WebUI

SCRIPT = "Lazy Negative: compare"
FIELD = "#script_txt2img_lazy_negative_compare_steps"
MENU = "#txt2img_script_container #script_list"


def test_one_click_makes_a_labelled_row(page: Page, server: WebUI) -> None:
    page.text("#txt2img_prompt", "girl eating pizza")
    page.text("#txt2img_neg_prompt", "glasses, hat")
    page.number("#txt2img_seed", 1)
    page.enable()
    page.set(critical_step=3)
    page.own("txt2img", "enabled-visible-checkbox").click()
    page.pick(MENU, SCRIPT)
    assert page.raw.locator(FIELD).is_visible()
    page.text(FIELD, "0, 8")
    page.generate()
    # The grid, and five pictures.
    gallery = page.raw.locator(
        "#txt2img_gallery .grid-container img, #txt2img_gallery .grid-wrap img"
    )
    sources = [gallery.nth(i).get_attribute("src") for i in range(gallery.count())]
    shown = [Image.open(io.BytesIO(page.raw.request.get(source).body())) for source in sources]
    assert [picture.size for picture in shown[1:]] == [shown[1].size] * 5
    assert shown[0].width >= 5 * shown[1].width
    infotext = page.infotext()
    assert SCRIPT in infotext
    assert f"{BY_NAME['critical_step'].infotext}: 3" in infotext

    # The grid's infotext brings all of it back.
    page.load()
    page.text("#txt2img_prompt", infotext)
    page.paste()
    assert page.chosen(MENU) == SCRIPT
    assert page.raw.locator(f"{FIELD} textarea").input_value() == "0, 8"
    shown_settings = page.values()
    assert (shown_settings["enabled"], shown_settings["critical_step"]) == (True, 3)


def test_steps_that_cannot_be_read_are_told(page: Page) -> None:
    page.pick(MENU, SCRIPT)
    page.text(FIELD, "five")
    page.raw.click("#txt2img_generate")
    told = page.raw.locator("#html_log_txt2img .comments")
    told.wait_for(timeout=60_000)
    assert "More critical steps is 'five'; allowed: whole numbers" in told.inner_text()
