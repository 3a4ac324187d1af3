"""Hosts that lack something: one true line at the start, no traceback, and the rest works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lazyneg import __version__

from .conftest import ROOT, TITLE, WebUI, same, start, tracebacks
from .hosts import Host

LOADED = f"Lazy Negative {__version__}"

WITHOUT_DENOISER = """
from modules import script_callbacks


class CFGDenoiserParams:
    def __init__(self, x, image_cond, sigma, sampling_step, total_sampling_steps, cond, uncond):
        raise NotImplementedError


script_callbacks.CFGDenoiserParams = CFGDenoiserParams
"""

CASES = {
    # As it was before its callbacks were handed the denoiser.
    "old": (
        WITHOUT_DENOISER + "from modules import options\ndel options.OptionHTML\n",
        f"Lazy Negative {__version__} is off: this WebUI is too old; 1.10.0 or newer is needed.",
        False,
    ),
    # SD.Next.
    "diffusers": (
        WITHOUT_DENOISER + "from modules import shared\nshared.native = True\n",
        f"Lazy Negative {__version__} is off: this WebUI runs diffusers' pipelines",
        False,
    ),
    "a name that is needed": (
        "from modules import sd_samplers_common\ndel sd_samplers_common.setup_img2img_steps\n",
        f"Lazy Negative {__version__} is off: this WebUI has no "
        "modules.sd_samplers_common.setup_img2img_steps.",
        False,
    ),
    "a module that is needed": (
        "import sys\nsys.modules['modules.prompt_parser'] = None\n",
        f"Lazy Negative {__version__} is off: this WebUI has no modules.prompt_parser.",
        False,
    ),
    "a name of a part": (
        "from modules import options\ndel options.OptionHTML\n",
        "Lazy Negative: the section on the Settings page is off, as this WebUI has no "
        "modules.options.OptionHTML.",
        True,
    ),
}
"""What is done to the host before the extension loads, what it then says, and whether it runs."""


FOREIGN_DENOISER = """
from modules.sd_samplers_cfg_denoiser import CFGDenoiser

forward = CFGDenoiser.forward
CFGDenoiser.forward = lambda self, *args, **kwargs: forward(self, *args, **kwargs)
"""


def share_models(data: Path, other: Path) -> None:
    """Lets another data folder have the models of the first."""
    for folder in ("models", "embeddings"):
        (other / folder).symlink_to(data / folder)


def told(log: str) -> list[str]:
    """What the extension says while the host starts, besides that it is there."""
    return [line for line in log.splitlines() if "Lazy Negative" in line and line != LOADED]


@contextmanager
def changed(host: Host, data: Path, tmp_path: Path, code: str) -> Iterator[WebUI]:
    """The host with the extension, and with code that runs before that loads."""
    share_models(data, tmp_path)
    # The host loads extensions in the order of their names.
    script = tmp_path / "extensions" / "a-other-host" / "scripts" / "other_host.py"
    script.parent.mkdir(parents=True)
    script.write_text(code, encoding="utf-8")
    # The host itself needs a module again that the extension was not to find.
    after = tmp_path / "extensions" / "z-other-host" / "scripts" / "other_host_after.py"
    after.parent.mkdir(parents=True)
    after.write_text(
        "import sys\n"
        "if sys.modules.get('modules.prompt_parser', 1) is None:\n"
        "    import modules\n"
        "    sys.modules['modules.prompt_parser'] = modules.prompt_parser\n",
        encoding="utf-8",
    )
    (tmp_path / "extensions" / "lazy-negative").symlink_to(ROOT)
    with contextmanager(start)(host, tmp_path) as webui:
        yield webui


@pytest.mark.parametrize("case", CASES)
def test_a_host_without(host: Host, data: Path, tmp_path: Path, case: str) -> None:
    code, said, runs = CASES[case]
    with changed(host, data, tmp_path, code) as webui:
        log = webui.log.read_text(errors="replace")
        assert [line.startswith(said) for line in told(log)] == [True]
        assert (LOADED in log.splitlines()) == runs
        assert [one for one in tracebacks(log) if "lazyneg" in one] == []
        assert (TITLE.lower() in webui.get("scripts")["txt2img"]) == runs
        asked = {"alwayson_scripts": {TITLE: {"args": [True, 1]}}} if runs else {}
        assert ("LazyNeg" in webui(steps=2, **asked).infotext) == runs


def test_a_denoiser_that_is_not_known(host: Host, data: Path, tmp_path: Path) -> None:
    """Only what takes another conditioning is refused, and all else works."""
    with changed(host, data, tmp_path, FOREIGN_DENOISER) as webui:
        for about in ({"area": 20}, {"adaptive": True}):
            refused = webui([{"enabled": True, "critical_step": 1, **about}], steps=3)
            error = refused.params["LazyNeg error"]
            assert error.startswith(
                "area and adaptive cannot be had here, as this WebUI's denoiser"
            )
            assert same(refused, webui(steps=3))
        assert not same(webui([True, 1], steps=3), webui(steps=3))


def test_two_copies_in_folders_of_any_name(host: Host, data: Path, tmp_path: Path) -> None:
    """One runs, as if it were alone, and one line tells of the other."""
    share_models(data, tmp_path)
    for name in ("A ネガ & more", "lazy-negative (1)"):
        copy = tmp_path / "extensions" / name
        copy.mkdir(parents=True)
        for part in ("javascript", "lazyneg", "scripts", "install.py", "metadata.ini", "style.css"):
            (copy / part).symlink_to(ROOT / part)
    with contextmanager(start)(host, tmp_path) as webui:
        log = webui.log.read_text(errors="replace")
        assert [line.startswith("Lazy Negative is there twice: ") for line in told(log)] == [True]
        assert log.splitlines().count(LOADED) == 1
        assert [one for one in tracebacks(log) if "lazyneg" in one] == []
        assert webui.get("scripts")["txt2img"].count(TITLE.lower()) == 1
        made = webui([True, 1], steps=3)
        assert "LazyNeg critical step: 1" in made.infotext
        assert not same(made, webui(steps=3))
        assert same(webui([True, 3], steps=3), webui(steps=3, negative_prompt=""))
