from __future__ import annotations

import pytest

from lazyneg.painting.infotext import Infotext, parse, split

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
