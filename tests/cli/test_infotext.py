from __future__ import annotations

import time

import pytest

from lazyneg.painting.infotext import Infotext, parse, rest, split

LAST = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"
PARAMETERS = {
    "Steps": "20",
    "Sampler": "Euler a",
    "CFG scale": "7",
    "Seed": "1",
    "Size": "64x32",
}


def test_reads_what_the_webui_writes() -> None:
    text = f"girl\neating pizza\nNegative prompt: ugly,\nbad: hands\n{LAST}"
    assert parse(text) == Infotext("girl\neating pizza", "ugly,\nbad: hands", PARAMETERS)


@pytest.mark.parametrize(
    "info",
    [
        Infotext("girl", "ugly", PARAMETERS),
        Infotext("girl", "", PARAMETERS),
        Infotext("girl", "ugly", {**PARAMETERS, "LazyNeg early prompt": '"lowres"'}),
        Infotext("girl", "ugly", {**PARAMETERS, "Model": " blanks\u2003", "Version": "a\rb"}),
        Infotext("女の子", "眼鏡", {**PARAMETERS, "LazyNeg early prompt": '"a", b: c\nd'}),
    ],
)
def test_reads_what_it_writes(info: Infotext) -> None:
    assert parse(str(info)) == info


def test_a_text_without_parameters_is_a_prompt() -> None:
    assert parse("girl: 1, pizza: 2") == Infotext("girl: 1, pizza: 2")


def test_splits_after_each_line_of_parameters() -> None:
    one, two = f"girl\n\nNegative prompt: ugly\n{LAST}", f"cat\n{LAST}"
    assert split(f"{one}\n\n{two}\n") == [one, two]
    assert split("girl") == ["girl"]
    assert split(" \n") == []


@pytest.mark.parametrize(
    "last",
    [
        LAST,
        "Sampler: Euler a, Steps: 20, Size: 64x32",
        "CFG scale: 7, Seed: 1, Size: 64x32",
        'Version: v1.10.1, Seed: 1, Model: some, Lora hashes: "a: 1, b: 2"',
        "Size: 64x32, Model hash: 0123456789, Model: x",
    ],
)
def test_splits_after_parameters_in_any_order(last: str) -> None:
    one, two = f"girl\nNegative prompt: ugly\n{last}", f"cat\nNegative prompt: hat\n{last}"
    assert split(f"{one}\n{two}") == [one, two]
    assert split(f"{one}\n\n\n{two}\n\n") == [one, two]
    assert parse(two).negative == "hat"
    assert len(parse(one).parameters) >= 3


@pytest.mark.parametrize(
    "line",
    [
        "Steps: of a stair",
        "Steps: 20, of a stair",
        "Seed: sunflower, Size: big",
        "Negative space: left, Color: red, Mood: calm",
        "hair: red, eyes: blue, dress: green, Steps: many",
        "Template: of a temple",
    ],
)
def test_lines_of_the_prompt_are_no_parameters(line: str) -> None:
    for prompt in (line, f"girl\n{line}", f"{line}\ngirl"):
        text = f"{prompt}\nNegative prompt: hat\n{line}\n{LAST}"
        assert split(text) == [text]
        assert split(f"{text}\n\n{text}") == [text, text]
        assert parse(text) == Infotext(prompt, f"hat\n{line}", PARAMETERS)


TEMPLATE = "Template: {girl|boy}\nNegative Template: hat"


@pytest.mark.parametrize(
    "after",
    [
        TEMPLATE,
        f"\n{TEMPLATE}",
        "Template: girl\n  in a {red|blue} dress",
        "Saved by me",
        "\nPS\n\nend",
    ],
)
def test_lines_after_the_parameters_are_no_part(after: str) -> None:
    one = f"girl\nNegative prompt: hat\n{LAST}"
    assert split(f"{one}\n{after}\n") == [f"{one}\n{after}"]
    assert parse(f"{one}\n{after}") == Infotext("girl", "hat", PARAMETERS)
    assert rest(f"{one}\n{after}") == after.strip()
    assert rest(one) == ""


def test_templates_stand_between_infotexts() -> None:
    one, two = f"girl\nNegative prompt: hat\n{LAST}\n{TEMPLATE}", f"cat\n{LAST}"
    assert split(f"{one}\n\n{two}") == [one, two]
    assert [parse(text).prompt for text in split(f"{one}\n\n{one}\n\n{two}")] == [
        "girl",
        "girl",
        "cat",
    ]


def test_a_prompt_that_is_still_without_parameters_is_kept() -> None:
    one, two = f"girl\n{LAST}", "cat\nNegative prompt: hat"
    assert split(f"{one}\n\n{two}") == [one, two]


def test_unusual_line_ends_stay_in_their_line() -> None:
    text = f"girl\u2028eating\x0bpizza\x85\nNegative prompt: hat\n{LAST}"
    assert split(text) == [text]
    assert parse(text).prompt == "girl\u2028eating\x0bpizza"


@pytest.mark.parametrize(
    "part",
    ["a", "a ", "a: ", 'aa: "', 'aa: \\"', 'aa: "b,', "- ", " ", "Steps: 1, ", "\\", "\n", '"'],
)
def test_long_texts_take_no_time(part: str) -> None:
    begin = time.process_time()
    for text in (part * (1_000_000 // len(part)), f'aa: "{part * (1_000_000 // len(part))}'):
        for one in split(text):
            parse(one)
            rest(one)
    assert time.process_time() - begin < 20
