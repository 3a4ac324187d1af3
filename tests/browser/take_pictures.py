"""Takes the pictures in ``docs/images`` from the running WebUI whose address it is given."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS, Page, opened
from tests.host.conftest import WebUI
from tests.host.hosts import A1111

IMAGES = Path(__file__).parents[2] / "docs" / "images"


def point(page: Page, share: float) -> None:
    page.own("txt2img", "enabled").scroll_into_view_if_needed()
    box = page.track().bounding_box()
    page.raw.mouse.move(box["x"] + box["width"] * share, box["y"] + 8)


def prepared(page: Page) -> Page:
    page.text("#txt2img_prompt", "girl eating pizza")
    page.text("#txt2img_neg_prompt", "wearing glasses")
    page.enable()
    return page


def accordion(page: Page) -> bytes:
    return bytes(page.own("txt2img", "enabled").screenshot())


def save(name: str, picture: bytes) -> None:
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(128).save(IMAGES / name, optimize=True)


def take(browser: Any, server: WebUI) -> None:
    for theme in ("light", "dark"):
        with opened(browser, server, theme=theme) as page:
            prepared(page)
            page.hires_fix()
            page.set(stop_step=14, hires="own", hires_critical_step=3)
            point(page, 0.33)
            page.settle()
            save(f"accordion-{theme}.png", accordion(page))
            page.set(critical_step=25, stop_step=0, hires="same")
            save(f"warning-{theme}.png", accordion(page))
    with opened(browser, server, theme="dark", viewport={"width": 360, "height": 1400}) as page:
        prepared(page)
        save("accordion-phone.png", accordion(page))
    with opened(browser, server) as page:
        prepared(page)
        frames = []
        point(page, 0.25)
        page.raw.mouse.down()
        for step in [*range(5, 15), *range(14, 1, -1), *range(2, 6)]:
            point(page, step / 20)
            page.settle(60)
            shot = Image.open(io.BytesIO(accordion(page)))
            frames.append(shot.convert("RGB").crop((0, 0, shot.width, 205)).quantize(64))
        page.raw.mouse.up()
        frames[0].save(
            IMAGES / "dragging.gif", save_all=True, append_images=frames[1:], duration=140, loop=0
        )
    with opened(browser, server) as page:
        page.to_tab("Settings")
        page.raw.click("#settings > .tab-nav > button:has-text('Lazy Negative')")
        page.settle()
        save("settings.png", page.raw.locator("#column_settings_lazyneg").screenshot())


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        take(chromium, WebUI(sys.argv[1], Path(), A1111))
        chromium.close()
