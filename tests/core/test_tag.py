from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyneg.core.settings import Settings, SettingsError
from lazyneg.core.tag import Picture

OFF = Settings()
UI = Settings.parse(
    {
        "enabled": True,
        "critical_step": 7,
        "unit": "percent",
        "stop_step": 90,
        "hires": "own",
        "hires_critical_step": 40,
        "early_prompt": "blurry",
    }
)


def settings(**values: object) -> Settings:
    return Settings.parse({"enabled": True, **values})


@pytest.mark.parametrize("ui", [OFF, UI])
@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (["5"], {"critical_step": 5}),
        (["25%"], {"critical_step": 25, "unit": "percent"}),
        (["5", "15"], {"critical_step": 5, "stop_step": 15}),
        (["20%", "60%"], {"critical_step": 20, "unit": "percent", "stop_step": 60}),
        (["0"], {"critical_step": 0}),
        (["5", "0"], {"critical_step": 5}),
    ],
)
def test_a_tag_takes_the_place_of_steps_and_unit(
    ui: Settings, tag: list[str], expected: dict[str, object]
) -> None:
    picture = Picture.of(ui, [tag])
    assert picture.first == settings(**expected, hires="same", early_prompt=ui.early_prompt)


def test_without_a_tag_the_request_decides() -> None:
    assert Picture.of(UI, []) == Picture(UI, UI)


def test_the_hires_choice_of_the_request_stays() -> None:
    full = Picture.of(settings(hires="full"), [["3"]])
    assert full.window(20, hires_pass=True).everywhere
    same = Picture.of(settings(hires="same"), [["3", "9"]])
    assert same.window(20, hires_pass=True) == same.window(20)
    own = Picture.of(UI, [["3"]])
    assert own.window(20, hires_pass=True) == UI.window(20, hires_pass=True)


@pytest.mark.parametrize("ui", [OFF, UI])
def test_a_tag_of_the_hires_prompt_speaks_for_the_hires_pass_alone(ui: Settings) -> None:
    picture = Picture.of(ui, [["3"]], [["5", "8"]])
    assert picture.window(20).critical == 3
    assert [picture.window(20, hires_pass=True).active(step) for step in (4, 5, 7, 8)] == [
        False,
        True,
        True,
        False,
    ]
    assert Picture.of(ui, [], [["5"]]).first == ui


@pytest.mark.parametrize(
    "tags",
    [
        [["x"]],
        [[""]],
        [["-1"]],
        [["2.5"]],
        [["5", "15", "25"]],
        [["5", "50%"]],
        [["9", "4"]],
        [["120%"]],
        [["5="]],
        [["5"], ["6"]],
    ],
)
def test_a_malformed_tag_is_named_with_what_is_allowed(tags: list[list[str]]) -> None:
    with pytest.raises(SettingsError, match=r"<lazyneg:.*allowed"):
        Picture.of(OFF, tags)


@given(st.lists(st.text(), min_size=1))
def test_hostile_tags_raise_nothing_else(items: list[str]) -> None:
    with contextlib.suppress(SettingsError):
        Picture.of(UI, [items])
