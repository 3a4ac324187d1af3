from __future__ import annotations

from tests.browser.conftest import Page


def test_a_malformed_tag_is_told_under_the_picture(page: Page) -> None:
    page.text("#txt2img_prompt", "a cat <lazyneg:soon>")
    page.number("#txt2img_steps", 4)
    page.generate()
    told = page.raw.locator("#txt2img_results").inner_text()
    assert "Lazy Negative ignores a tag: cannot read the tag <lazyneg:soon>; allowed:" in told
    page.text("#txt2img_prompt", "a cat <lazyneg:2>")
    page.generate()
    assert "Lazy Negative" not in page.raw.locator("#txt2img_results").inner_text()
    assert "<lazyneg:2>" in page.infotext()


def test_what_is_no_tag_is_told_under_the_picture(page: Page) -> None:
    page.text("#txt2img_prompt", "a cat <LazyNeg:2>")
    page.text("#txt2img_neg_prompt", "ugly <lazyneg:3>")
    page.number("#txt2img_steps", 4)
    page.generate()
    told = page.raw.locator("#txt2img_results").inner_text()
    assert "Lazy Negative ignores a tag: <LazyNeg:2> in the prompt is not a tag; allowed:" in told
    assert "Lazy Negative ignores a tag: <lazyneg:3> in the negative prompt does nothing" in told


def test_refused_settings_are_told_under_the_picture(page: Page) -> None:
    page.enable()
    page.set(critical_step=9, stop_step=4)
    page.number("#txt2img_steps", 4)
    page.generate()
    told = page.raw.locator("#txt2img_results").inner_text()
    assert "Lazy Negative is off for this picture: stop_step is 4; allowed:" in told
    assert "LazyNeg error" in page.infotext()
