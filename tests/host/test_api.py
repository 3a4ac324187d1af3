"""What an API client sends and gets back: payloads, bad input, infotext."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lazyneg import __version__
from lazyneg.core.settings import Settings
from lazyneg.painting.infotext import Infotext

from .conftest import DEFAULTS, TITLE, Answer, WebUI, answered, same

HIRES = {
    "enable_hr": True,
    "hr_scale": 1.5,
    "denoising_strength": 0.8,
    "steps": 6,
}


VERSION = f"LazyNeg version: {__version__}"


def lines(answer: Answer) -> list[str]:
    """The extension's part of the infotext, without the version."""
    last = answer.infotext.splitlines()[-1]
    found = [part for part in last.split(", ") if part.startswith("LazyNeg")]
    return [part for part in found if part != VERSION]


def test_the_arguments_are_announced(webui: WebUI) -> None:
    for tab in ("txt2img", "img2img"):
        assert TITLE.lower() in webui.get("scripts")[tab]
    infos = [info for info in webui.get("script-info") if info["name"] == TITLE.lower()]
    assert [info["is_img2img"] for info in infos] == [False, True]
    for info in infos:
        assert info["is_alwayson"]
        assert [(arg["label"], arg["value"]) for arg in info["args"]] == [
            ("Lazy Negative", False),
            ("Critical step", 5),
            ("Unit", "steps"),
            ("Stop step", 0),
            ("Hires pass", "full"),
            ("Hires critical step", 0),
            ("Early negative prompt", ""),
            ("Area", 100),
            ("Adaptive", False),
        ]


def test_not_asked_for_leaves_no_trace(webui: WebUI) -> None:
    assert "LazyNeg" not in webui().infotext
    assert "LazyNeg" not in webui([False, 5]).infotext


def test_the_version_is_told_beside_settings_and_tags(webui: WebUI) -> None:
    assert VERSION in webui([True, 5]).infotext
    assert VERSION in webui(prompt="girl <lazyneg:3>").infotext
    assert "LazyNeg version" not in webui([True, -1]).infotext


@pytest.mark.parametrize(
    ("lazy", "shown"),
    [
        ([True], ["LazyNeg critical step: 5"]),
        ([True, 0], ["LazyNeg critical step: 0"]),
        ([True, None, None, None, None, None, None], ["LazyNeg critical step: 5"]),
        ([True, 5.0], ["LazyNeg critical step: 5"]),
        ([{"enabled": True}], ["LazyNeg critical step: 5"]),
        ([{"enabled": True, "critical_step": None}], ["LazyNeg critical step: 5"]),
        (
            [{"enabled": True, "critical_step": 25, "unit": "percent", "stop_step": 60}],
            ["LazyNeg critical step: 25%", "LazyNeg stop step: 60%"],
        ),
        (
            [{"enabled": True, "hires": "own", "hires_critical_step": 4}],
            [
                "LazyNeg critical step: 5",
                "LazyNeg hires: own",
                "LazyNeg hires critical step: 4",
            ],
        ),
        (
            [True, 3, "steps", 7, "same", 0, "lowres"],
            [
                "LazyNeg critical step: 3",
                "LazyNeg stop step: 7",
                "LazyNeg hires: same",
                "LazyNeg early prompt: lowres",
            ],
        ),
        (
            [True, 8, "steps", 0, "full", 0, "", 20.0, True],
            [
                "LazyNeg critical step: 8",
                "LazyNeg area: 20%",
                "LazyNeg adaptive: True",
                "LazyNeg acted: never",
            ],
        ),
        ([{"enabled": True, "area": 100, "adaptive": False}], ["LazyNeg critical step: 5"]),
        ([{"critical_step": 3}], []),
        ([{}], []),
        ([None], []),
    ],
)
def test_payloads(webui: WebUI, lazy: list[Any], shown: list[str]) -> None:
    assert lines(webui(lazy)) == shown


def test_a_dict_says_the_same_as_a_list(webui: WebUI) -> None:
    by_place = webui([True, 2, "steps", 6, "same", 0, "lowres"])
    by_name = webui(
        [
            {
                "early_prompt": "lowres",
                "hires": "same",
                "stop_step": 6,
                "critical_step": 2,
                "enabled": True,
            }
        ]
    )
    assert same(by_place, by_name)
    assert by_place.infotext == by_name.infotext


@pytest.mark.parametrize(
    ("lazy", "named"),
    [
        ([True, -1], "-1"),
        ([True, 2.5], "2.5"),
        ([True, True], "True"),
        ([True, "5"], "5"),
        ([True, [5]], "[5]"),
        ([True, {"a": 1}], "{'a': 1}"),
        ([True, 101, "percent"], "101"),
        ([True, 5, "minutes"], "minutes"),
        ([True, 5, 7], "7"),
        ([True, 5, "steps", 5], "5"),
        ([True, 5, "steps", 3], "3"),
        ([True, 5, "steps", -3], "-3"),
        ([True, 5, "steps", False], "False"),
        ([True, 5, "percent", 200], "200"),
        ([True, 5, "steps", 0, "sometimes"], "sometimes"),
        ([True, 5, "steps", 0, "own", -4], "-4"),
        ([True, 5, "steps", 0, "own", 2.5], "2.5"),
        ([True, 5, "steps", 0, "full", 0, 7], "7"),
        ([{"enabled": True, "area": 0}], "area is 0"),
        ([{"enabled": True, "area": 101}], "area is 101"),
        ([{"enabled": True, "area": 10.5}], "area is 10.5"),
        ([{"enabled": True, "area": "x"}], "area is 'x'"),
        ([{"enabled": True, "area": True}], "area is True"),
        ([{"enabled": True, "adaptive": "yes"}], "adaptive is 'yes'"),
        ([True, 5, "steps", 0, "full", 0, "", 100, 1], "adaptive is 1"),
        ([1], "1"),
        (["yes", 5], "yes"),
        ([{"enabled": True, "critical": 5}], "critical"),
        ([{"enable": True}], "enable"),
        ([{"enabled": "true"}], "true"),
        ([[True, 5]], "[True, 5]"),
    ],
)
def test_bad_input(webui: WebUI, lazy: list[Any], named: str) -> None:
    off, bad = webui(), webui(lazy)
    assert same(bad, off)
    error = bad.params["LazyNeg error"]
    assert named in error
    assert "allowed" in error
    assert "LazyNeg error: " in bad.infotext
    assert "LazyNeg critical step" not in bad.infotext
    assert bad.info["infotexts"] == [bad.infotext]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_none(webui: WebUI, number: str) -> None:
    """Python's JSON reads these, other clients may send them."""
    off = webui()
    payload = json.dumps({**DEFAULTS, "alwayson_scripts": {TITLE: {"args": [True, "number"]}}})
    response = webui.session.post(
        f"{webui.url}/sdapi/v1/txt2img",
        data=payload.replace('"number"', number),
        headers={"Content-Type": "application/json"},
        timeout=300,
    )
    assert response.ok, response.text
    answer = answered(response.json())
    assert same(answer, off)
    assert "allowed" in answer.params["LazyNeg error"]


@pytest.mark.parametrize(
    "lazy",
    [
        [True, 3],
        [True, 0],
        [True, 25, "percent", 60],
        [True, 2, "steps", 0, "same"],
        [True, 2, "steps", 0, "own", 4],
        [True, 30, "percent", 70, "own", 50, 'lowres, (ugly:1.2): "quoted" \\ back, 日本語'],
        [True, 3, "steps", 0, "full", 0, '"lowres"'],
        [True, 3, "steps", 0, "full", 0, "64x64"],
        [True, 3, "steps", 0, "full", 0, "two\nlines"],
        [False, 3],
    ],
)
@pytest.mark.usefixtures("decoded")  # some hosts do not note how else pictures are decoded
def test_an_infotext_sent_back_makes_the_same_picture(webui: WebUI, lazy: list[Any]) -> None:
    first = webui(lazy, **HIRES)
    again = webui.again(first.infotext)
    # Some hosts write more of the hires pass the second time.
    assert lines(again) == lines(first)
    assert same(again, first)


def test_an_infotext_sent_back_to_img2img(webui: WebUI, init_images: list[str]) -> None:
    """There the host's own reading changes the picture, with the extension or without."""
    lazy = [True, 30, "percent", 70, "own", 50, "lowres"]
    sent, plain = (webui(args, init_images=init_images) for args in (lazy, None))
    by_infotext = webui(infotext=sent.infotext, init_images=init_images)
    assert same(by_infotext, webui(lazy, infotext=plain.infotext, init_images=init_images))
    assert lines(by_infotext) == lines(sent)
    assert not same(by_infotext, webui(infotext=plain.infotext, init_images=init_images))


def test_arguments_win_over_the_infotext(webui: WebUI) -> None:
    sent = webui([True, 3]).infotext
    assert lines(webui([True, 6], infotext=sent)) == ["LazyNeg critical step: 6"]
    assert lines(webui([False], infotext=sent)) == []
    assert lines(webui(infotext=sent)) == ["LazyNeg critical step: 3"]


@pytest.mark.parametrize("value", ["abc", "-1", "2.5", "101%", '"5, 6"'])
def test_a_damaged_infotext_switches_it_off(webui: WebUI, value: str) -> None:
    sent = webui([True, 3]).infotext.replace("critical step: 3", f"critical step: {value}")
    assert same(webui(infotext=sent), webui())


def test_png_info_reads_it(webui: WebUI) -> None:
    made = webui([True, 40, "percent", 80])
    read = webui.post("png-info", {"image": base64.b64encode(made.pngs[0]).decode()})
    assert read["info"] == made.infotext
    assert read["parameters"]["LazyNeg critical step"] == "40%"
    assert read["parameters"]["LazyNeg stop step"] == "80%"
    assert Image.open(io.BytesIO(made.pngs[0])).info["parameters"] == made.infotext


def test_the_host_reads_what_the_command_line_writes(webui: WebUI) -> None:
    settings = Settings.parse(
        {"enabled": True, "critical_step": 5, "stop_step": 9, "early_prompt": '"low, res": 1'}
    )
    parameters = {"Steps": "20", "Sampler": "Euler", "CFG scale": "7.5", "Seed": "1"}
    written = Infotext("girl,\neating: pizza", "glasses", {**parameters, **settings.infotext()})
    text = PngInfo()
    text.add_text("parameters", str(written))
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=text)
    image = base64.b64encode(file.getvalue()).decode()
    read = webui.post("png-info", {"image": image})["parameters"]
    assert read["Prompt"] == written.prompt
    assert read["Negative prompt"] == written.negative
    assert {key: read[key] for key in written.parameters} == written.parameters
    assert Settings.from_infotext(read) == settings
