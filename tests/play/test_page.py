"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from lazyneg.play import recipes
from lazyneg.play.session import Session
from tests.play.conftest import HOSTILE, asked, pixels, sources

SETTLED = 30_000
START = {"steps": 30, "guidance": 5}
"""What the page starts with, where tests otherwise make fewer steps."""


class Page:
    """What a user sees and does."""

    def __init__(self, raw: Any, url: str) -> None:
        self.raw = raw
        self.hosts: set[str | None] = set()
        self.called: list[str] = []
        raw.set_default_timeout(SETTLED)
        raw.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        raw.expose_function("pwned", lambda: self.called.append("pwned"))
        raw.goto(url)
        raw.wait_for_selector("#pictures img")

    def sources(self) -> list[str]:
        return sources(self.raw.locator("#pictures").inner_html())

    def text(self, name: str) -> str:
        return str(self.raw.locator(f"#{name}").inner_text())

    def type(self, name: str, text: str) -> None:
        field = self.raw.locator(f"#{name} :is(textarea, input)").first
        field.fill(text)
        field.blur()

    def until(self, text: str, name: str = "timeline") -> None:
        self.raw.wait_for_function(
            "([id, text]) => document.getElementById(id).innerText.includes(text)",
            arg=[name, text],
        )

    def code(self, name: str) -> Any:
        self.raw.get_by_role("tab", name=name.capitalize()).click()
        return self.raw.locator(f"#{name}")


def opened(browser: Any, served: Any, **about: Any) -> Iterator[Page]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **about})
    try:
        yield Page(context.new_page(), served.local_url)
    finally:
        context.close()


@pytest.fixture
def page(browser: Any, served: Any) -> Iterator[Page]:
    yield from opened(browser, served, permissions=["clipboard-read", "clipboard-write"])


def test_shows_the_pictures_to_the_pixel(page: Page, embedded: Session) -> None:
    row = embedded.row(asked(**START))
    shown = [pixels(source) for source in page.sources()]
    for picture, painted in zip(shown, (row.without, row.always, row.delayed), strict=True):
        assert np.array_equal(picture, np.asarray(painted.picture))
    assert not np.array_equal(shown[1], shown[2])
    assert page.text("pictures").split("\n") == ["Without a negative prompt", "Always", "From 3"]


def test_the_slider_by_keyboard_changes_the_last_picture_only(
    page: Page, embedded: Session
) -> None:
    before = page.sources()
    slider = page.raw.locator("#critical_step input[type=range]")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    page.until("negative prompt: 8-29")
    without, always, delayed = page.sources()
    assert [without, always] == before[:2]
    painted = embedded.row(asked(**START, critical_step=8)).delayed
    assert np.array_equal(pixels(delayed), np.asarray(painted.picture))


def test_no_queue_builds_up(page: Page, embedded: Session) -> None:
    painted: list[int] = []
    unet = embedded.painter.pipe.unet
    hook = unet.register_forward_pre_hook(lambda *_: painted.append(1))
    page.type("seed", "12")
    slider = page.raw.locator("#critical_step input[type=range]")
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    page.until("negative prompt: 23-29")
    # Not one for each step of the slider: that would be more than 20 times 7.
    assert len(painted) < 30 * 2 + 27 + 3 * 30
    hook.remove()


def test_differences(page: Page) -> None:
    plain = [pixels(source).astype(int) for source in page.sources()]
    page.raw.locator("#differences input").check()
    page.until("what differs", "pictures")
    shown = [pixels(source) for source in page.sources()]
    assert np.array_equal(shown[0], plain[0])
    assert np.array_equal(shown[2], abs(plain[2] - plain[0]))
    page.raw.locator("#differences input").uncheck()
    page.raw.wait_for_function("!document.body.innerText.includes('what differs')")


def test_tells_where_an_adaptive_one_acted(page: Page) -> None:
    page.raw.locator("#adaptive input").check()
    page.until("LazyNeg acted: 3-")


def test_the_unit_is_converted(page: Page) -> None:
    slider = page.raw.locator("#critical_step input[type=range]")
    assert slider.get_attribute("max") == "30"
    page.raw.locator("#unit label", has_text="percent").click()
    page.until("From 10 %", "pictures")
    page.until("negative prompt: 3-29")
    assert slider.get_attribute("max") == "100"


@pytest.mark.parametrize("name", ["command", "python", "infotext"])
def test_copies(page: Page, embedded: Session, name: str) -> None:
    code = page.code(name)
    code.get_by_role("button", name="Copy").click()
    row = embedded.row(asked(**START))
    texts = {
        "command": recipes.command(embedded, row),
        "python": recipes.python(embedded, row),
        "infotext": str(row.delayed.infotext),
    }
    copied = page.raw.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == texts[name]


def test_errors_are_words_on_the_page(page: Page) -> None:
    before = page.sources()
    page.type("negative", " ")
    alert = page.raw.get_by_role("alert").first
    assert alert.inner_text() == "Not painted: negative is empty; allowed: any text."
    assert page.sources() == before
    page.type("negative", "glasses")
    page.raw.wait_for_function("document.getElementById('messages').innerText.trim() === ''")
    page.type("seed", "-5")
    page.until("seed is -5; allowed: whole numbers from 0", "messages")


def test_nothing_of_the_user_is_run(page: Page) -> None:
    for name in ("prompt", "negative", "early_prompt"):
        page.type(name, f"{HOSTILE} {name}")
    page.until("early negative prompt")
    for name in ("command", "python", "infotext"):
        page.code(name)
        page.until("pwned()", name)
    page.type("prompt", f"{HOSTILE} <lazyneg: {HOSTILE}>")
    page.raw.wait_for_timeout(1000)
    assert page.called == []
    assert page.raw.locator("img[src=x]").count() == 0


def test_nothing_is_fetched_from_elsewhere(page: Page) -> None:
    page.code("python")
    page.raw.wait_for_timeout(1000)
    # Pictures are in the page itself.
    assert page.hosts - {None, ""} == {"127.0.0.1"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser: Any, served: Any, scheme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    for page in opened(browser, served, **phone):
        assert page.raw.evaluate("document.documentElement.scrollWidth") <= 390
        boxes = [figure.bounding_box() for figure in page.raw.locator("#pictures figure").all()]
        assert len({box["y"] for box in boxes}) == 1
        assert all(box["width"] > 100 for box in boxes)
        shade = page.raw.evaluate("getComputedStyle(document.body).backgroundColor")
        levels = [int(level) for level in shade[4:-1].split(",")]
        assert (max(levels) < 80) is (scheme == "dark")
