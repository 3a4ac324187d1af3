from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyneg.core.settings import Settings, SettingsError
from lazyneg.core.tag import Picture, cut, misuses

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


@pytest.mark.parametrize(
    ("prompt", "rest", "tags"),
    [
        ("girl <lazyneg:1>", "girl ", [["1"]]),
        ("a <lazyneg:5:15> b <lazyneg:x>", "a  b ", [["5", "15"], ["x"]]),
        ("<lora:style:0.5>girl", "<lora:style:0.5>girl", []),
        ("<lazyneg:> <LAZYNEG:5> lazyneg:5", "<lazyneg:> <LAZYNEG:5> lazyneg:5", []),
        ("<lazyneg:5", "<lazyneg:5", []),
        # The WebUI reads the first of these as a network "a".
        ("<a:<lazyneg:5>", "<a:<lazyneg:5>", []),
        ("<lazyneg:\n5>", "", [["\n5"]]),
    ],
)
def test_a_tag_is_cut_out_of_the_prompt(prompt: str, rest: str, tags: list[list[str]]) -> None:
    assert cut(prompt) == (rest, tags)


ALLOWED = "<lazyneg:5>, <lazyneg:25%>, <lazyneg:5:15>"


@pytest.mark.parametrize(
    "shown",
    [
        "<LAZYNEG:5>",
        "<LazyNeg:5:15>",
        "<lazyneg 5>",
        "<lazyneg5>",
        "<lazyneg=5>",
        "<lazyneg :5>",
        "< lazyneg : 25% >",
        "<lazyneg:>",
        "<lazyneg>",
        "<lazyneg:5",
        "<Lazy Negative:5>",
        "<lazy-neg:5>",
        "<lazy_neg:5>",
        "<lazynge:5>",
        "<lasyneg:5>",
        "lazyneg:5",
        "\uff1clazyneg\uff1a5\uff1e",
    ],
)
def test_what_is_almost_a_tag_is_told(shown: str) -> None:
    prompt = f"girl, <lora:x:1> hat {shown}"
    in_prompt = f"{shown} in the prompt is not a tag; allowed: {ALLOWED}"
    in_negative = f"{shown} in the negative prompt does nothing; allowed: in the prompt, {ALLOWED}"
    assert misuses(prompt, prompt) == [in_prompt, in_negative]
    assert misuses(prompt + prompt, "") == [in_prompt]


def test_messages_are_short() -> None:
    long = f"<lazyneg:{'5' * 10**6}>"
    many = "".join(f"<lazyneg {number}>" for number in range(10**4))
    for prompt, negative in ((many, many), ("", long), ("", 10**4 * "<lazyneg:5>")):
        messages = misuses(prompt, negative)
        assert 0 < len("".join(messages)) < 1000
    for tags in ([["5" * 10**6]], [["5"]] * 10**6):
        with pytest.raises(SettingsError, match=r"<lazyneg:5.*….*allowed") as refused:
            Picture.of(OFF, tags)
        assert len(str(refused.value)) < 300


def test_a_tag_in_the_negative_prompt_is_told() -> None:
    [message] = misuses("girl <lazyneg:5>", "ugly <lazyneg:5:15>")
    assert message.startswith("<lazyneg:5:15> in the negative prompt does nothing; allowed: in the")


@pytest.mark.parametrize(
    "prompt",
    [
        "girl <lazyneg:5>",
        "<lora:lazyneg:1>, <hypernet:lazynegative:0.5>",
        "easynegative, <easynegative:0.8>, (easynegative:1.2)",
        "a <3 lazy negative space",
        "lazy cat, negative film: 5",
        "<lazy:5> <negative:5>",
        "1 < 2 > 0",
    ],
)
def test_other_words_are_no_tags(prompt: str) -> None:
    assert misuses(prompt, prompt.replace("<lazyneg:5>", "")) == []


@pytest.mark.parametrize("part", ["<lazyneg:", "<", "<a ", "lazyneg ", "<lazyneg:5> ", "<lazy"])
def test_long_texts_take_no_time(part: str) -> None:
    begin = time.process_time()
    misuses(part * 50_000, part * 50_000)
    assert time.process_time() - begin < 10


@given(st.text(alphabet="<>:lazyneg5 \uff1c"), st.text())
def test_any_text_is_looked_through(prompt: str, negative: str) -> None:
    rest, tags = cut(prompt)
    assert len(rest) + sum(len(":".join(items)) + len("<lazyneg:>") for items in tags) == len(
        prompt
    )
    for message in misuses(prompt, negative):
        assert "allowed" in message
