"""Other extensions at work beside this one, all of them loaded, one switched on at a time.

They lie in the folder that ``NEIGHBOURS_DIR`` names, each in one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import HERE, ROOT, Answer, WebUI, install, same, start, tracebacks
from .hosts import Host
from .test_other_hosts import share_models

FOLDER = os.environ.get("NEIGHBOURS_DIR")
HIRES = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, "steps": 6}
TWO = {"prompt": "girl eating BREAK pizza balloon"}
TWO_LINES = {"prompt": "girl eating\npizza balloon"}
NEVER = [True, 99, "steps", 0, "same"]
ALWAYS = "girl eating cake"
"""A negative prompt whose object is in every picture of the prompt's."""
_FAMILY = ("Forge", "Forge Neo")


@dataclass(frozen=True)
class Neighbour:
    """Another extension, and a request in which it acts.

    Attributes:
        folder: Its repository's name.
        title: What its script is called in the API.
        args: Its arguments by place, where they are not the defaults.
        request: Changes to the request.
        hosts: Those that it is tried on.
        always_on: Whether no request can leave it out: the prompt asks for it, or it fails once it
            has been on.
        changes_uncond: Whether it changes the conditioning that this one puts in.
    """

    folder: str
    title: str
    args: Mapping[int, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    hosts: tuple[str, ...] = ("A1111",)
    always_on: bool = False
    changes_uncond: bool = False


NEIGHBOURS = {
    "Dynamic Thresholding": Neighbour(
        "sd-dynamic-thresholding", "Dynamic Thresholding (CFG Scale Fix)", {0: True, 1: 3.0}
    ),
    "CADS": Neighbour("sd-webui-cads", "CADS", {0: True, 1: 0.3, 2: 0.9}, changes_uncond=True),
    "Detail Daemon": Neighbour(
        "sd-webui-detail-daemon", "Detail Daemon", {0: True, 1: True, 7: 0.5}
    ),
    "Hires fix tweaks": Neighbour("sd-webui-hires-fix-tweaks", "Hires. fix tweaks", {0: 3}, HIRES),
    "Incantations, SEG": Neighbour("sd-webui-incantations", "Incantations", {0: True}),
    "Incantations, S-CFG": Neighbour("sd-webui-incantations", "Incantations", {4: True}),
    "Incantations, PAG": Neighbour("sd-webui-incantations", "Incantations", {12: True, 13: 3}),
    "Neutral Prompt": Neighbour(
        "sd-webui-neutral-prompt",
        "Neutral Prompt",
        request={"prompt": "girl eating pizza AND_PERP balloon :1"},
        always_on=True,
    ),
    "Regional Prompter, attention": Neighbour(
        "sd-webui-regional-prompter", "Regional Prompter", {0: True}, TWO
    ),
    "Regional Prompter, latent": Neighbour(
        "sd-webui-regional-prompter",
        "Regional Prompter",
        {0: True, 11: "Latent"},
        TWO,
        always_on=True,
    ),
    "NegPiP": Neighbour(
        "sd-webui-negpip", "NegPiP", {0: True}, {"prompt": "girl eating pizza, (balloon:-1.5)"}
    ),
    "Negative Prompt Weight": Neighbour(
        "stable-diffusion-NPW",
        "Negative Prompt Weight Extention",
        {0: 1.5},
        changes_uncond=True,
    ),
    "Forge Couple": Neighbour(
        "sd-forge-couple", "Forge Couple", {0: True}, TWO_LINES, hosts=_FAMILY
    ),
    "Perturbed Attention": Neighbour(
        "sd-perturbed-attention", "Perturbed-Attention Guidance", {0: True}, hosts=_FAMILY
    ),
    "Smoothed Energy": Neighbour(
        "sd-perturbed-attention", "Smoothed Energy Guidance", {0: True}, hosts=_FAMILY
    ),
}


@contextmanager
def loaded(host: Host, data: Path, folder: Path, ours: bool) -> Iterator[WebUI]:
    """The host with the neighbours that are for it."""
    folder.mkdir()
    share_models(data, folder)
    # Some want them while they load, before the host has made them.
    (folder / "ui-config.json").write_text("{}", encoding="utf-8")
    (folder / "tmp").mkdir()
    extensions = {
        name: Path(FOLDER or "") / name
        for name in {one.folder for one in NEIGHBOURS.values() if host.kind.name in one.hosts}
        if (Path(FOLDER or "") / name).is_dir()
    }
    install(folder, {**extensions, "test-support": HERE / "support"})
    if ours:
        install(folder, {"lazy-negative": ROOT})
    with contextmanager(start)(host, folder) as webui:
        yield webui


def request(webui: WebUI, neighbour: Neighbour) -> dict[str, Any]:
    """A request with the neighbour switched on."""
    scripts = [
        script
        for script in webui.get("script-info")
        if script["name"] == neighbour.title.lower() and not script["is_img2img"]
    ]
    if not scripts:
        pytest.skip(f"{neighbour.folder} is not there")
    values = [about["value"] for about in scripts[0]["args"]]
    for place, value in neighbour.args.items():
        values[place] = value
    return {**neighbour.request, "alwayson_scripts": {neighbour.title: {"args": values}}}


@pytest.fixture(scope="module")
def folders(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if FOLDER is None:
        pytest.skip("NEIGHBOURS_DIR is not set: no other extensions (see CONTRIBUTING.md)")
    return tmp_path_factory.mktemp("neighbours")


@pytest.fixture(scope="module")
def alone(host: Host, data: Path, folders: Path) -> dict[str, Answer]:
    """What each makes where this extension is not installed."""
    made = {}
    with loaded(host, data, folders / "alone", ours=False) as webui:
        for name, neighbour in NEIGHBOURS.items():
            if host.kind.name in neighbour.hosts:
                try:
                    made[name] = webui(**request(webui, neighbour))
                except pytest.skip.Exception:
                    continue
    return made


@pytest.fixture(scope="module")
def beside(host: Host, data: Path, folders: Path, alone: dict[str, Answer]) -> Iterator[WebUI]:
    with loaded(host, data, folders / "beside", ours=True) as webui:
        yield webui
        log = webui.log.read_text(errors="replace")
    assert [block for block in tracebacks(log) if "/lazyneg/" in block] == []


@pytest.fixture(params=NEIGHBOURS)
def name(host: Host, request: pytest.FixtureRequest) -> str:
    """Each neighbour that is for the host."""
    found: str = request.param
    if host.kind.name not in NEIGHBOURS[found].hosts:
        pytest.skip(f"{found} is not for {host.kind.name}")
    return found


def test_beside(name: str, alone: dict[str, Answer], beside: WebUI) -> None:
    neighbour = NEIGHBOURS[name]
    webui, about = beside, request(beside, neighbour)

    plain = webui(**about)
    assert same(plain, webui(**about))
    assert same(plain, alone[name])
    if not neighbour.always_on:
        assert not same(plain, webui(**{**about, "alwayson_scripts": {}}))
    empty = webui(**about, negative_prompt="")
    assert not same(plain, empty)

    assert same(plain, webui([False, 3], **about))
    assert same(plain, webui([True, 0], **about))
    assert same(empty, webui(NEVER, **about))
    for window in ({"from_turn": 3}, {"from_turn": 2, "to_turn": 5}):
        lazy = [True, window["from_turn"], "steps", window.get("to_turn", 0), "same"]
        made = webui(lazy, **about)
        assert same(made, webui(support={"reference": {"first": window, "hires": window}}, **about))
        assert not same(made, plain)
        assert not same(made, empty)
    two = {**about, "batch_size": 2}
    assert same(webui(NEVER, **two), webui(**two, negative_prompt=""))
    assert same(webui([True, 0], **two), webui(**two))


def test_area_and_adaptive(name: str, beside: WebUI) -> None:
    neighbour = NEIGHBOURS[name]
    webui, about = beside, request(beside, neighbour)
    adaptive = [{"enabled": True, "critical_step": 0, "adaptive": True}]

    made = webui([{"enabled": True, "critical_step": 0, "area": 10}], {"comments": True}, **about)
    assert "LazyNeg error" not in made.params
    assert not same(made, webui(**about))
    told = any("changes the unconditional conditioning" in it for it in made.params["Comments"])
    assert told == neighbour.changes_uncond
    if neighbour.changes_uncond:
        return
    # Acting in all steps it is the plain negative prompt, but for the sizes of batches.
    always = {**about, "negative_prompt": ALWAYS}
    apart = webui(adaptive, **always).pixels.astype(int) - webui(**always).pixels
    assert np.abs(apart).max() <= 1
    if "prompt" not in neighbour.request:
        nothing = {**about, "prompt": ""}
        assert same(webui(adaptive, **nothing), webui(**nothing, negative_prompt=""))
