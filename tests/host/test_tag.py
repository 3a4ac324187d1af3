"""``<lazyneg:…>`` in the prompt, as people who script prompts use it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from .conftest import DEFAULTS, TITLE, WebUI, same

Pixels = NDArray[np.uint8]

PROMPT = "girl eating pizza"
HIRES = {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.7}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lazyneg:4>", [True, 4]),
        ("<lazyneg:50%>", [True, 50, "percent"]),
        ("<lazyneg:2:6>", [True, 2, "steps", 6]),
        ("<lazyneg:0>", None),
    ],
)
@pytest.mark.parametrize("page", [None, [True, 6, "percent", 90]])
def test_a_tag_decides_in_place_of_the_settings(
    webui: WebUI, tag: str, expected: list[Any] | None, page: list[Any] | None
) -> None:
    tagged = webui(prompt=PROMPT + tag, lazy=page)
    assert same(tagged, webui(lazy=expected))
    assert "LazyNeg error" not in tagged.params


def test_early_prompt_and_hires_choice_stay(webui: WebUI) -> None:
    for about in (
        {"early_prompt": "blurry"},
        {"hires": "same"},
        {"hires": "own", "hires_critical_step": 3},
    ):
        tagged = webui(prompt=f"{PROMPT}<lazyneg:4>", lazy=[{"enabled": True, **about}], **HIRES)
        assert same(tagged, webui(lazy=[{"enabled": True, "critical_step": 4, **about}], **HIRES))


def test_a_tag_of_the_hires_prompt_speaks_for_the_hires_pass(webui: WebUI) -> None:
    about = {**HIRES, "hr_prompt": "a dog"}
    tagged = webui(**{**about, "hr_prompt": "a dog<lazyneg:3>"})
    own = {"enabled": True, "critical_step": 0, "hires": "own", "hires_critical_step": 3}
    assert same(tagged, webui(lazy=[own], **about))
    assert not same(tagged, webui(**about))


@pytest.mark.parametrize("tag", ["<lazyneg:x>", "<lazyneg:9:4>", "<lazyneg:1><lazyneg:2>"])
def test_a_malformed_tag_is_reported_and_has_no_effect(webui: WebUI, tag: str) -> None:
    for lazy in (None, [True, 4]):
        tagged = webui(prompt=PROMPT + tag, lazy=lazy)
        assert same(tagged, webui(lazy=lazy))
        assert "allowed" in tagged.params["LazyNeg error"]
        assert "allowed" in " ".join(tagged.info["infotexts"])


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"prompt": f"{PROMPT} <LAZYNEG:5>"}, "<LAZYNEG:5> in the prompt is not a tag"),
        ({"prompt": f"{PROMPT} <lazy neg:5>"}, "<lazy neg:5> in the prompt is not a tag"),
        ({"negative_prompt": "hat <lazyneg:5>"}, "<lazyneg:5> in the negative prompt does nothing"),
        ({"hr_prompt": "a dog <Lazyneg:5>", **HIRES}, "<Lazyneg:5> in the prompt is not a tag"),
        (
            {"hr_negative_prompt": "hat <lazyneg:3>", **HIRES},
            "<lazyneg:3> in the negative prompt does nothing",
        ),
        ({"styles": ["tagged"]}, "<lazyneg:2> in the negative prompt does nothing"),
    ],
)
@pytest.mark.parametrize("lazy", [None, [True, 4]])
def test_what_is_no_tag_is_told(
    webui: WebUI, about: dict[str, Any], named: str, lazy: list[Any] | None
) -> None:
    """Misspelt or in the wrong place."""
    made = webui(lazy, **about)
    assert made.params["LazyNeg error"].startswith(named)
    assert "allowed: " in made.params["LazyNeg error"]
    assert named in made.infotext
    assert ("LazyNeg critical step" in made.params) == bool(lazy)
    # It goes on with the settings.
    assert "LazyNeg error" not in webui(lazy).params


@pytest.mark.usefixtures("decoded")  # some hosts do not note how else pictures are decoded
def test_the_infotext_reproduces_the_picture(webui: WebUI) -> None:
    abouts: list[dict[str, Any]] = [
        {"prompt": f"{PROMPT} <lazyneg:4>", "lazy": [True, 6, "steps", 7]},
        {"prompt": f"{PROMPT} <lazyneg:4>"},
        {"prompt": f"{PROMPT} <lazyneg:x>", "lazy": [True, 6]},
        {"prompt": f"{PROMPT} <lazyneg:4>", "lazy": ["bad"]},
        {"hr_prompt": "a dog <lazyneg:3>", "lazy": [True, 2, "steps", 0, "same"], **HIRES},
    ]
    for about in abouts:
        made = webui(**about)
        assert same(made, webui.again(made.infotext))


@pytest.mark.usefixtures("decoded")
def test_each_picture_of_a_batch_has_its_own_tag(webui: WebUI) -> None:
    def matrix(second: str, lazy: Any = None, **about: Any) -> list[Pixels]:
        """Both pictures of one batch, of which the second has more in its prompt."""
        payload = {
            **DEFAULTS,
            "prompt": f"{PROMPT}|{second}",
            "batch_size": 2,
            "script_name": "prompt matrix",
            "script_args": [False, False, "positive", "comma", 0],
            "alwayson_scripts": {TITLE: {"args": lazy}} if lazy else {},
            **about,
        }
        return pictures(webui, payload)[1:]  # the first is the grid

    plain, late = matrix(""), matrix("", [True, 4])
    mixed = matrix("<lazyneg:4>")
    assert (mixed[0] == plain[0]).all()
    assert (mixed[1] == late[1]).all()
    assert (late[1] != plain[1]).any()
    mixed = matrix("<lazyneg:0>", [True, 4])
    assert (mixed[0] == late[0]).all()
    assert (mixed[1] == plain[1]).all()
    # With more tokens than the empty prompt: the same up to the order of a sum's terms.
    long = {"negative_prompt": ", ".join(["glasses of a long hat"] * 40)}
    mixed = matrix("<lazyneg:4>", **long)
    for pixels, expected in zip(mixed, (matrix("", **long)[0], matrix("", [True, 4], **long)[1])):
        assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_prompts_from_a_file_have_a_tag_each_and_nothing_leaks(webui: WebUI) -> None:
    tags = ["<lazyneg:4>", "", "<lazyneg:6>", "<lazyneg:x>", ""]
    name = "prompts from file or textbox"
    script = next(one for one in webui.get("script-info") if one["name"] == name)
    # Forge's takes one value more than others'.
    values = {argument["label"]: argument["value"] for argument in script["args"]}
    values["List of prompt inputs"] = "\n".join(PROMPT + tag for tag in tags)
    listed = webui(prompt="", script_name=name, script_args=list(values.values()))
    plain, four, six = webui(), webui(lazy=[True, 4]), webui(lazy=[True, 6])
    for pixels, expected in zip(listed.pixels, (four, plain, six, plain, plain)):
        assert (pixels == expected.pixels[0]).all()
    errors = ["LazyNeg error" in text for text in listed.info["infotexts"]]
    assert errors == [False, False, False, True, False]


def pictures(webui: WebUI, payload: dict[str, Any]) -> list[Pixels]:
    answer = webui.post("txt2img", payload)
    files = [io.BytesIO(base64.b64decode(image)) for image in answer["images"]]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]
