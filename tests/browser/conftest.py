"""The page of a real WebUI in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lazyneg.core.settings import SETTINGS
from tests.host.conftest import WebUI, data, host, start
from tests.host.hosts import Host

__all__ = ["data", "host"]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ACCORDION = "enabled-visible-checkbox"
SET = """
([selector, value]) => {
    const field = document.querySelector(selector);
    field.value = value;
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {bubbles: true}));
}
"""
"""Fills in a number, also of a tab that is not shown."""
NAMES = tuple(setting.name for setting in SETTINGS if setting.name != "enabled")


@pytest.fixture(scope="session")
def server(host: Host, data: Path) -> Iterator[WebUI]:
    (data / "styles.csv").write_text(
        "name,prompt,negative_prompt\nart school,,low contrast\n", encoding="utf-8"
    )
    with contextmanager(start)(host, data) as webui:
        # Where the page shows pictures that are not saved, some hosts want a folder of their own.
        webui.options(samples_save=host.kind.forge, grid_save=host.kind.forge, grid_format="png")
        # Neo's preset fills these in once the page is there.
        for tab in ("t2i", "i2i"):
            webui.options(**{f"sd_{tab}_step": 20, f"sd_{tab}_cfg": 7})
        webui.options(sd_t2i_hr_step=0)
        yield webui


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium found: install one, or name it in CHROMIUM")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, server: WebUI) -> Iterator[Page]:
    with opened(browser, server) as page:
        yield page


@contextmanager
def opened(browser: Any, server: WebUI, *, theme: str = "light", **about: Any) -> Iterator[Page]:
    """The WebUI's page in a fresh browser profile."""
    about.setdefault("viewport", {"width": 1400, "height": 1400})
    context = browser.new_context(**about)
    try:
        page = Page(context.new_page(), server, theme)
        page.load()
        yield page
    finally:
        context.close()


class Page:
    """What a user sees and does. ``tab`` is ``txt2img`` or ``img2img``."""

    def __init__(self, page: Any, server: WebUI, theme: str) -> None:
        self.raw = page
        self.server = server
        self.url = f"{server.url}/?__theme={theme}"
        page.set_default_timeout(30_000)

    def load(self) -> None:
        self.raw.goto(self.url)
        self.raw.wait_for_selector(self.id("txt2img", ACCORDION), state="attached")
        # The host fetches its settings last.
        self.raw.wait_for_function("Object.keys(opts).length > 0")
        # Hosts start with different ones.
        for tab in ("txt2img", "img2img"):
            for name, value in (("steps", 20), ("cfg_scale", 7)):
                self.raw.evaluate(SET, [f"#{tab}_{name} input[type=number]", value])
        self.settle()

    def id(self, tab: str, name: str) -> str:
        return f"#script_{tab}_lazy_negative_{name}"

    def own(self, tab: str, name: str, inner: str = "") -> Any:
        return self.raw.locator(f"{self.id(tab, name)} {inner}".strip())

    def inside(self, tab: str, inner: str) -> Any:
        return self.own(tab, "enabled", inner)

    def settle(self, milliseconds: int = 400) -> None:
        """Until the page has answered: it says so nowhere."""
        self.raw.wait_for_timeout(milliseconds)

    def to_tab(self, name: str) -> None:
        self.raw.click(f"#tabs > .tab-nav > button:has-text('{name}')")

    def enable(self, tab: str = "txt2img") -> None:
        self.own(tab, "enabled", ".label-wrap").click()
        self.own(tab, "critical_step").wait_for(state="visible")
        self.settle()

    def number(self, selector: str, value: float) -> None:
        field = self.raw.locator(f"{selector} input[type=number]")
        field.fill(str(value))
        field.blur()

    def set(self, tab: str = "txt2img", **values: Any) -> None:
        for name, value in values.items():
            if name in ("unit", "hires"):
                self.own(tab, name, f"label:has-text('{value}')").click()
            elif name == "early_prompt":
                self.own(tab, name, "textarea").fill(value)
            elif name == "adaptive":
                self.own(tab, name, "input").set_checked(value)
            else:
                self.number(self.id(tab, name), value)
        self.settle()

    def text(self, selector: str, value: str) -> None:
        self.raw.locator(f"{selector} textarea").first.fill(value)

    def values(self, tab: str = "txt2img") -> dict[str, Any]:
        """All settings as the page shows them."""
        shown: dict[str, Any] = {"enabled": self.own(tab, ACCORDION).is_checked()}
        for name in NAMES:
            if name in ("unit", "hires"):
                shown[name] = self.own(tab, name, "input:checked").input_value()
            elif name == "early_prompt":
                shown[name] = self.own(tab, name, "textarea").input_value()
            elif name == "adaptive":
                shown[name] = self.own(tab, name, "input").is_checked()
            else:
                shown[name] = int(self.own(tab, name, "input[type=number]").input_value())
        return shown

    def expect(self, values: dict[str, Any], tab: str = "txt2img") -> None:
        """All settings, as soon as the page shows them."""
        for _ in range(20):
            if self.values(tab) == values:
                return
            self.settle()
        assert self.values(tab) == values

    def words(self, tab: str = "txt2img") -> str:
        return str(self.inside(tab, ".lazyneg-words").inner_text())

    def warnings(self, tab: str = "txt2img") -> str:
        return str(self.inside(tab, ".lazyneg-warnings").inner_text())

    def track(self, row: int = 0, tab: str = "txt2img") -> Any:
        return self.inside(tab, ".lazyneg-track").nth(row)

    def paste(self, tab: str = "txt2img") -> None:
        """Presses the arrow button, until the host has read the text in the prompt's field."""
        field = f"#{tab}_prompt textarea"
        before = self.raw.locator(field).input_value()
        self.raw.locator(f"#{tab}_tools #paste").click()
        self.raw.wait_for_function(
            "([field, before]) => document.querySelector(field).value !== before",
            arg=[field, before],
        )
        self.settle(1000)

    def pick(self, dropdown: str, choice: str) -> None:
        self.raw.locator(f"{dropdown} input").first.fill(choice)
        self.raw.locator(f"{dropdown} ul li", has_text=choice).first.click()
        self.settle()

    def chosen(self, dropdown: str) -> str:
        return str(self.raw.locator(f"{dropdown} input").first.input_value())

    def hires_fix(self) -> None:
        """Opens or closes the hires pass' accordion, with an upscaler that needs no model."""
        self.raw.click("#txt2img_hr .label-wrap")
        self.settle()
        upscaler = self.raw.locator("#txt2img_hr_upscaler")
        if upscaler.is_visible() and self.chosen("#txt2img_hr_upscaler") != self.server.upscaler:
            self.pick("#txt2img_hr_upscaler", self.server.upscaler)

    def generate(self, tab: str = "txt2img") -> None:
        """Makes small pictures with the settings shown."""
        for side in ("width", "height"):
            self.number(f"#{tab}_{side}", 64)
        before = self.raw.locator(f"#html_info_{tab}").first.inner_text()
        self.raw.click(f"#{tab}_generate")
        self.raw.wait_for_function(
            "([id, before]) => document.querySelector(id).innerText.trim() !== before.trim()",
            arg=[f"#html_info_{tab}", before],
            timeout=60_000,
        )
        self.settle()

    def infotext(self, tab: str = "txt2img") -> str:
        return str(self.raw.locator(f"#html_info_{tab}").first.inner_text())

    def reload_ui(self) -> None:
        """The host's "Reload UI", which builds the page anew from the saved settings."""
        self.to_tab("Settings")
        starts = self.server.starts()
        self.raw.click("#settings_restart_gradio")
        # The old page would ask too early whether the server is back.
        self.settle(500)
        self.raw.goto("about:blank")
        self.server.wait(starts + 1)
        self.load()
