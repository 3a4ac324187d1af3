from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lazyneg.core.settings import Settings
from lazyneg.painting.infotext import Infotext
from lazyneg.painting.pictures import label
from lazyneg.play import drawing
from lazyneg.play.session import Painted, Row
from tests.play.conftest import HOSTILE, pixels, sources

COLORS = ((200, 100, 0), (200, 90, 0), (10, 100, 255))


def row(steps: int, acted: tuple[int, ...] = (), **delay: Any) -> Row:
    settings = Settings.parse({"enabled": True, **delay})
    without, always, delayed = (
        Painted(Image.new("RGB", (4, 4), color), Infotext(HOSTILE), frozenset(acted))
        for color in COLORS
    )
    job = Infotext(HOSTILE, HOSTILE)
    return Row(job, settings, settings.window(steps), without, always, delayed, ())


@pytest.mark.parametrize(
    ("drawn", "parts", "words"),
    [
        (row(8, critical_step=3), [("empty", 3), ("negative", 5)],
         ["empty prompt: 0-2", "negative prompt: 3-7"]),
        (row(8, critical_step=25, stop_step=50, unit="percent"),
         [("empty", 2), ("negative", 2), ("empty", 4)],
         ["empty prompt: 0-1, 4-7", "negative prompt: 2-3"]),
        (row(8, critical_step=0), [("negative", 8)], ["negative prompt: 0-7"]),
        (row(8, critical_step=8, early_prompt=HOSTILE), [("empty", 8)],
         ["early negative prompt: 0-7", "negative prompt: never"]),
        (row(8, (2, 3, 5), critical_step=2, adaptive=True),
         [("empty", 2), ("negative", 2), ("waiting", 1), ("negative", 1), ("waiting", 2)],
         ["empty prompt: 0-1", "LazyNeg acted: 2-3, 5", "adaptive waits: 4, 6-7"]),
        (row(8, critical_step=0, adaptive=True), [("waiting", 8)],
         ["LazyNeg acted: never", "adaptive waits: 0-7"]),
    ],
)  # fmt: skip
def test_timeline(drawn: Row, parts: list[tuple[str, int]], words: list[str]) -> None:
    html = drawing.timeline(drawn)
    found = re.findall(r'<i class="(\w+)" style="flex-grow:(\d+)">', html)
    assert [(name, int(count)) for name, count in found] == parts
    assert f'aria-label="{"; ".join(words)}"' in html
    assert re.findall(r"</i> ([^<]+)</span>", html) == words


def test_differences_are_from_the_picture_without() -> None:
    drawn = row(8, critical_step=3)
    shown = [pixels(source) for source in sources(drawing.figures(drawn, differences=False))]
    assert [tuple(picture[0, 0]) for picture in shown] == list(COLORS)
    html = drawing.figures(drawn, differences=True)
    first, *others = (pixels(source).astype(int) for source in sources(html))
    assert np.array_equal(first, shown[0])
    for picture, plain in zip(others, shown[1:], strict=True):
        assert np.array_equal(picture, abs(plain.astype(int) - first))
    assert f"{label(drawn.settings).capitalize()}: what differs" in html


def test_the_same_pictures_are_called_so() -> None:
    drawn = row(8, critical_step=8)
    same = dataclasses.replace(drawn, always=drawn.without, delayed=drawn.without)
    html = drawing.figures(same, differences=True)
    assert html.count("no pixel differs") == 4


def test_nothing_of_the_user_is_markup() -> None:
    drawn = row(4, critical_step=1, early_prompt=HOSTILE)
    html = [
        drawing.figures(drawn, differences=True),
        drawing.timeline(drawn),
        drawing.said([HOSTILE], "alert"),
    ]
    for text in html:
        assert "<img src=x" not in text
        assert "<script" not in text
    assert html[2].count("<") == 2
