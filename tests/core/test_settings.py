from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyneg.core.settings import BY_NAME, MAXIMUM, SETTINGS, Settings, SettingsError
from lazyneg.core.window import Window

text = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=9), max_size=20)


@st.composite
def valid_settings(draw: st.DrawFn) -> Settings:
    percent = draw(st.booleans())
    most = 100 if percent else MAXIMUM
    critical = draw(st.integers(0, most))
    return Settings.parse(
        {
            "enabled": True,
            "critical_step": critical,
            "unit": "percent" if percent else "steps",
            "stop_step": draw(
                st.just(0) | st.integers(critical + 1, most) if critical < most else st.just(0)
            ),
            "hires": draw(st.sampled_from(["full", "same", "own"])),
            "hires_critical_step": draw(st.integers(0, most)),
            "early_prompt": draw(text),
            "area": draw(st.integers(1, 100)),
            "adaptive": draw(st.booleans()),
        }
    )


def test_the_table_and_the_settings_agree() -> None:
    assert [field.name for field in dataclasses.fields(Settings)] == list(BY_NAME)
    for setting in SETTINGS:
        assert getattr(Settings(), setting.name) == setting.default
        assert setting.help.endswith(".")
    keys = [setting.infotext for setting in SETTINGS if setting.infotext]
    assert len(set(keys)) == len(keys)


def test_the_order_of_the_api_arguments_is_fixed() -> None:
    assert list(BY_NAME) == [
        "enabled",
        "critical_step",
        "unit",
        "stop_step",
        "hires",
        "hires_critical_step",
        "early_prompt",
        "area",
        "adaptive",
    ]


@given(valid_settings())
def test_infotext_reproduces_the_settings(settings: Settings) -> None:
    params = settings.infotext()
    # A share of 0 still tells its unit: it stands in the critical step.
    assert Settings.from_infotext(params) == settings


@pytest.mark.parametrize(
    ("values", "infotext"),
    [
        ({}, {"LazyNeg critical step": "5"}),
        ({"critical_step": 25, "unit": "percent"}, {"LazyNeg critical step": "25%"}),
        (
            {"stop_step": 15, "hires": "same"},
            {
                "LazyNeg critical step": "5",
                "LazyNeg stop step": "15",
                "LazyNeg hires": "same",
            },
        ),
        (
            {
                "unit": "percent",
                "stop_step": 60,
                "hires": "own",
                "hires_critical_step": 10,
                "early_prompt": "lowres, blurry",
            },
            {
                "LazyNeg critical step": "5%",
                "LazyNeg stop step": "60%",
                "LazyNeg hires": "own",
                "LazyNeg hires critical step": "10%",
                "LazyNeg early prompt": "lowres, blurry",
            },
        ),
    ],
)
def test_infotext_keys(values: dict[str, Any], infotext: dict[str, str]) -> None:
    assert Settings.parse({"enabled": True, **values}).infotext() == infotext


def test_an_early_prompt_that_looks_like_a_size() -> None:
    """The WebUI's reader splits it."""
    params = {
        "LazyNeg critical step": "5",
        "LazyNeg early prompt-1": "64",
        "LazyNeg early prompt-2": "64",
    }
    assert Settings.from_infotext(params).early_prompt == "64x64"


def test_no_keys_no_settings() -> None:
    assert Settings().infotext() == {}
    assert Settings.from_infotext({"Steps": "20", "LazyNeg stop step": "3"}) == Settings()


@pytest.mark.parametrize(
    "params",
    [
        {"LazyNeg critical step": "many"},
        {"LazyNeg critical step": "-1"},
        {"LazyNeg critical step": "2.5"},
        {"LazyNeg critical step": "101%"},
        {"LazyNeg critical step": "9" * 5000},
        {"LazyNeg critical step": 10**5000},
        {"LazyNeg critical step": "5", "LazyNeg stop step": "60%"},
        {"LazyNeg critical step": "5", "LazyNeg stop step": "4"},
        {"LazyNeg critical step": "5", "LazyNeg hires": "sometimes"},
    ],
)
def test_a_damaged_infotext_is_refused(params: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_infotext(params)
    assert len(str(refused.value)) < 300


@given(valid_settings(), st.integers(1, 200))
def test_windows(settings: Settings, steps: int) -> None:
    def in_steps(value: int) -> int:
        return math.floor(value * steps / 100) if settings.unit == "percent" else value

    stop = in_steps(settings.stop_step) if settings.stop_step else None
    window = Window(in_steps(settings.critical_step), stop, steps)
    assert settings.window(steps) == window
    assert (
        settings.window(steps, hires_pass=True)
        == {
            "full": Window(0, None, steps),
            "same": window,
            "own": Window(in_steps(settings.hires_critical_step), None, steps),
        }[settings.hires]
    )
    for hires_pass in (False, True):
        if not settings.delays(hires_pass=hires_pass):
            assert settings.window(steps, hires_pass=hires_pass) == Window(0, None, steps)


def test_disabled_settings_delay_nothing() -> None:
    assert Settings().window(20).everywhere
    assert not Settings().delays()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"critical_step": -1}, "-1"),
        ({"critical_step": 2.5}, "2.5"),
        ({"critical_step": MAXIMUM + 1}, "1000000001"),
        ({"critical_step": math.nan}, "nan"),
        ({"critical_step": math.inf}, "inf"),
        ({"critical_step": True}, "True"),
        ({"critical_step": "5"}, "'5'"),
        ({"critical_step": [5]}, "[5]"),
        ({"critical_step": 101, "unit": "percent"}, "101"),
        ({"stop_step": -3}, "-3"),
        ({"stop_step": 5}, "stop_step is 5"),
        ({"stop_step": 2}, "stop_step is 2"),
        ({"stop_step": 200, "unit": "percent"}, "200"),
        ({"unit": "seconds"}, "'seconds'"),
        ({"unit": 1}, "1"),
        ({"hires": "never"}, "'never'"),
        ({"hires_critical_step": -1}, "-1"),
        ({"hires": "own", "hires_critical_step": 101, "unit": "percent"}, "101"),
        ({"early_prompt": 7}, "7"),
        ({"enabled": 1}, "1"),
        ({"enabled": "yes"}, "'yes'"),
        ({"critical": 5}, "'critical'"),
        # What takes long to write out, or cannot be.
        ({"critical_step": 10**5000}, "critical_step is <int>"),
        ({"area": json.loads("[" * 900 + "]" * 900)}, "area is [[[["),
        ({"unit": "s" * 10**6}, "unit is 'ssss"),
        ({"s" * 10**6: 1}, "unknown setting 'ssss"),
        # What no infotext can carry.
        ({"early_prompt": "\ud800"}, r"early_prompt is '\ud800'"),
        ({"early_prompt": "a\0"}, r"early_prompt is 'a\x00'"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, str) else "",
)
def test_bad_values_are_named_with_what_is_allowed(values: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.parse({"enabled": True, **values})
    assert named in str(refused.value)
    assert "allowed" in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_value_that_cannot_be_shown_is_told_by_its_type() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(SettingsError, match="enabled is <list>; allowed"):
        Settings.parse({"enabled": nested})
    with pytest.raises(SettingsError, match="LazyNeg critical step is "):
        Settings.from_infotext({"LazyNeg critical step": nested})


def test_missing_values_and_none_take_the_defaults() -> None:
    nothing = {setting.name: None for setting in SETTINGS}
    assert Settings.parse({**nothing, "enabled": True}) == Settings(enabled=True)
    assert Settings.parse(nothing) == Settings()


@given(st.integers(0, MAXIMUM))
def test_whole_numbers_in_any_form(value: int) -> None:
    assert Settings.parse({"enabled": True, "critical_step": value}).critical_step == value
    parsed = Settings.parse({"enabled": True, "critical_step": float(value)})
    assert parsed.critical_step == value
    assert isinstance(parsed.critical_step, int)


def test_what_is_off_is_not_looked_at() -> None:
    assert Settings.parse({"enabled": False, "critical_step": "rubbish"}) == Settings()


def test_hires_critical_step_is_ranged_only_where_it_is_read() -> None:
    values = {"enabled": True, "unit": "percent", "hires_critical_step": 120}
    assert Settings.parse(values).window(10, hires_pass=True).everywhere
