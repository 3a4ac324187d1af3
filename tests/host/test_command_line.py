"""What the command line writes means the same in the WebUI, and the other way round."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lazyneg import demo
from lazyneg.core.settings import Settings
from lazyneg.core.tag import cut
from lazyneg.painting import pictures
from lazyneg.painting.infotext import Infotext, parse
from lazyneg.painting.painter import Painter
from lazyneg.painting.reading import infotexts
from lazyneg.painting.samplers import SAMPLERS, SCHEDULES

from .conftest import Answer, WebUI, answered

STEPS = 8
REQUEST = {"Steps": str(STEPS), "CFG scale": "5", "Seed": "3", "Size": "64x64"}


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(demo.CHECKPOINT, demo.CONFIG, [], "cpu", None)


def sent_back(embedded: WebUI, picture: Image.Image, text: Infotext) -> Answer:
    """The picture that the host makes of a PNG as the command line writes it."""
    file = io.BytesIO()
    pictures.save(picture, file, str(text))
    image = base64.b64encode(file.getvalue()).decode()
    read = embedded.post("png-info", {"image": image})
    return answered(embedded.post("txt2img", {"infotext": read["info"]}))


def difference(answer: Answer, picture: Image.Image) -> Any:
    """Where the host cuts off, diffusers rounds: up to one is the same."""
    return np.abs(answer.pixels[0].astype(int) - np.asarray(picture))


TOGETHER = [
    (name, schedule)
    for name, sampler in SAMPLERS.items()
    for schedule in (SCHEDULES if sampler.automatic else [""])
]
# Of these the noise comes from another source, or the timesteps are the host's own.
OTHERWISE = {name for name in SAMPLERS if "SDE" in name} | {"LCM", "DDIM", "PLMS", "UniPC"}


@pytest.mark.parametrize(("name", "schedule"), TOGETHER)
def test_the_host_makes_what_is_written(
    embedded: WebUI, painter: Painter, name: str, schedule: str
) -> None:
    job = Infotext(
        "girl eating pizza", "glasses", {**REQUEST, "Sampler": name, "Schedule type": schedule}
    )
    settings = Settings.parse({"enabled": True, "critical_step": 2, "stop_step": 6})
    picture, text = painter.paint(job, settings, "")
    answer = sent_back(embedded, picture, text)
    read = parse(answer.infotext)
    assert read.parameters["Sampler"] == name
    # Of these the host's own name for the default is "Automatic".
    written = text.parameters.get("Schedule type", "Automatic")
    assert read.parameters.get("Schedule type", "Automatic") == written
    assert read.parameters["LazyNeg critical step"] == "2"
    assert read.parameters["LazyNeg stop step"] == "6"
    if name not in OTHERWISE:
        apart = difference(answer, picture)
        assert apart.max() <= 3
        assert apart.mean() < 0.7
        plain = difference(answer, painter.paint(job, Settings(), "")[0])
        assert plain.mean() > 1.3 * apart.mean()


@pytest.mark.parametrize("tag", ["<lazyneg:3>", "<lazyneg:25%:75%>"])
def test_a_tag_means_the_same(embedded: WebUI, painter: Painter, tag: str) -> None:
    job = Infotext(f"girl eating pizza {tag}", "glasses", {**REQUEST, "Sampler": "Euler"})
    answer = answered(embedded.post("txt2img", {"infotext": str(job)}))
    prompt, [values] = cut(job.prompt)
    begin, *end = (int(value.rstrip("%")) for value in values)
    settings = Settings.parse(
        {
            "enabled": True,
            "critical_step": begin,
            "stop_step": end[0] if end else 0,
            "unit": "percent" if "%" in tag else "steps",
        }
    )
    picture, _ = painter.paint(Infotext(prompt, job.negative, job.parameters), settings, "")
    assert difference(answer, picture).max() <= 3


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("prompt", ["girl", "女の子, (pizza: 1.2)\nSteps: of a stair 😀"])
def test_what_the_host_writes_is_read(
    embedded: WebUI, tmp_path: Path, kind: str, prompt: str
) -> None:
    embedded.options(samples_format=kind)
    answer = embedded([True, 3], prompt=prompt, negative_prompt="眼鏡", steps=1)
    path = tmp_path / "picture"
    path.write_bytes(answer.pngs[0])
    assert Image.open(path).format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind]
    [text] = infotexts(path)
    assert text == answer.info["infotexts"][0]
    read = parse(text)
    assert (read.prompt, read.negative) == (prompt, "眼鏡")
    assert Settings.from_infotext(read.parameters).critical_step == 3


LAST = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"


@pytest.mark.parametrize(
    "text",
    [
        f"girl\nSteps: of a stair\nNegative prompt: hat\n{LAST}",
        f"Steps: 3, a: b\r\n girl \r\nNegative prompt:hat \r\n boy\r\n{LAST}\r\n",
        f'girl\n{LAST}, Lora hashes: "a: 1, b: 2", X-Y/Z: (1), LazyNeg early prompt: "a\\nb: c"',
        "girl\nNegative prompt: hat\nSize: 64x32, Seed: 1, Steps: 20",
        "Negative prompt: hat\nSteps: 20, Seed: 1, Sampler: Euler",
        "girl: 1, pizza: 2",
        "hair: red, eyes: blue, dress: green",
    ],
)
def test_infotexts_are_read_alike(embedded: WebUI, text: str) -> None:
    file = io.BytesIO()
    pictures.save(Image.new("RGB", (8, 8)), file, text)
    image = base64.b64encode(file.getvalue()).decode()
    theirs = embedded.post("png-info", {"image": image})["parameters"]
    ours = parse(text)
    assert ours.prompt == theirs["Prompt"]
    assert ours.negative == theirs["Negative prompt"]
    for name, value in ours.parameters.items():
        if name == "Size":
            assert value == f"{theirs['Size-1']}x{theirs['Size-2']}"
        else:
            assert str(theirs[name]) == value
