"""Nothing of one request reaches another: the fifth equality."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .conftest import Answer, WebUI, same

LAZY = [True, 4, "steps", 0, "same", 0, "lowres"]
CHOOSING = [*LAZY[:1], 1, *LAZY[2:], 30, True]


@pytest.fixture
def alone(webui: WebUI, init_images: list[str]) -> Iterator[None]:
    """What a plain and a lazy request make is the same before and after the test."""

    def pictures() -> list[Answer]:
        return [
            webui(),
            webui(LAZY),
            webui(CHOOSING),
            webui(init_images=init_images, steps=10),
            webui(LAZY, init_images=init_images, steps=10),
        ]

    before = pictures()
    yield
    for then, now in zip(before, pictures()):
        assert same(then, now)
        assert then.infotext == now.infotext


@pytest.mark.parametrize("fail", ["process", "before sampling", "callback"])
def test_another_extension_fails(webui: WebUI, alone: None, fail: str) -> None:
    """The host goes on without it, and so do we."""
    for at_call in (2, 5):
        broken = webui(LAZY, support={"fail": fail, "at_call": at_call})
        assert same(broken, webui(LAZY))


@pytest.mark.parametrize(
    ("fail", "lazy"),
    [("_encode", LAZY), ("swap", LAZY), ("Guidance", CHOOSING), ("_encode", CHOOSING)],
)
def test_our_own_code_fails(webui: WebUI, alone: None, fail: str, lazy: list[Any]) -> None:
    """The picture comes as without the extension, and says so."""
    broken = webui(lazy, support={"fail": fail})
    assert same(broken, webui())
    assert "asked to fail" in broken.params["LazyNeg error"]
    assert "LazyNeg critical step" not in broken.params


@pytest.mark.parametrize("owner", ["guidance", "row"])
def test_the_choice_fails(webui: WebUI, alone: None, owner: str) -> None:
    """In the middle of a run: from there on the picture is made without the extension."""
    broken = webui(CHOOSING, support={"fail": owner})
    assert "asked to fail" in broken.params["LazyNeg error"]
    assert [key for key in broken.params if key.startswith("LazyNeg")] == ["LazyNeg error"]


@pytest.mark.parametrize("stop", ["interrupt", "skip"])
@pytest.mark.parametrize("at_call", [2, 6])
def test_interrupt_and_skip(webui: WebUI, alone: None, stop: str, at_call: int) -> None:
    webui(LAZY, support={"stop": stop, "at_call": at_call})
    webui([True, 2], support={"stop": stop, "at_call": at_call}, n_iter=2)
    webui(CHOOSING, support={"stop": stop, "at_call": at_call}, n_iter=2)


@pytest.mark.parametrize("at_call", [2, 6])
def test_the_host_crashes(webui: WebUI, alone: None, at_call: int) -> None:
    with pytest.raises(AssertionError, match="500"):
        webui(LAZY, support={"stop": "crash", "at_call": at_call})
    with pytest.raises(AssertionError, match="500"):
        webui(CHOOSING, support={"stop": "crash", "at_call": at_call})


def test_interrupted_by_the_user(webui: WebUI, alone: None) -> None:
    whole = webui(LAZY, steps=60)
    with ThreadPoolExecutor() as background:
        request = background.submit(WebUI(webui.url, webui.log, webui.kind), LAZY, steps=60)
        while webui.get("progress")["state"]["sampling_step"] < 8:
            time.sleep(0.01)
        webui.post("interrupt", {})
        assert not same(request.result(), whole)


def test_bad_input_before_and_after(webui: WebUI, alone: None) -> None:
    webui([True, -1])
    webui(LAZY)
    webui([{"enabled": True, "x": 1}])


def test_checkpoint_change(webui: WebUI, alone: None) -> None:
    # The Forge family's checkpoint of Stable Diffusion XL is a large one.
    others = ("sd1b",) if webui.kind.forge else ("sd1b", "sdxl", "sd1b")
    for checkpoint in others:
        changed: dict[str, Any] = {"override_settings": {"sd_model_checkpoint": checkpoint}}
        never = webui([True, 8], **changed)
        assert same(never, webui(**changed, negative_prompt=""))


def test_loras_do_not_stay_in_the_empty_prompt(webui: WebUI, alone: None) -> None:
    for prompt in ("girl <lora:style:1>", "girl", "girl <lora:style:0.5>", "girl"):
        never = webui([True, 8], prompt=prompt)
        assert same(never, webui(prompt=prompt, negative_prompt=""))


def test_clip_skip_and_emphasis_changes(webui: WebUI, alone: None) -> None:
    for skip in (1, 2, 1, 3):
        changed: dict[str, Any] = {"override_settings": {"CLIP_stop_at_last_layers": skip}}
        never = webui([True, 8], **changed)
        assert same(never, webui(**changed, negative_prompt=""))


def test_many_requests_in_any_order(webui: WebUI, alone: None, init_images: list[str]) -> None:
    tabs: list[dict[str, Any]] = [{}, {"init_images": init_images}]
    for lazy in ([True, 2], CHOOSING, None, [True, 6, "steps", 7], [False], [True, 50, "percent"]):
        for tab in tabs:
            first = webui(lazy, **tab)
            webui([True, 1, "steps", 0, "full", 0, "other"], **tabs[0])
            assert same(webui(lazy, **tab), first)
