"""Hosts that lack something: one true line at the start, no traceback, and the rest works."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import ROOT, TITLE, start, tracebacks
from .hosts import Host

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
        "Lazy Negative is off: this WebUI is too old; 1.10.0 or newer is needed.",
        False,
    ),
    # SD.Next.
    "diffusers": (
        WITHOUT_DENOISER + "from modules import shared\nshared.native = True\n",
        "Lazy Negative is off: this WebUI runs diffusers' pipelines",
        False,
    ),
    "a name that is needed": (
        "from modules import sd_samplers_common\ndel sd_samplers_common.setup_img2img_steps\n",
        "Lazy Negative is off: this WebUI has no modules.sd_samplers_common.setup_img2img_steps.",
        False,
    ),
    "a module that is needed": (
        "import sys\nsys.modules['modules.prompt_parser'] = None\n",
        "Lazy Negative is off: this WebUI has no modules.prompt_parser.",
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


@pytest.mark.parametrize("case", CASES)
def test_a_host_without(host: Host, data: Path, tmp_path: Path, case: str) -> None:
    code, said, runs = CASES[case]
    for folder in ("models", "embeddings"):
        (tmp_path / folder).symlink_to(data / folder)
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
        log = webui.log.read_text(errors="replace")
        assert log.count("Lazy Negative") == log.count(said) == 1
        assert [one for one in tracebacks(log) if "lazyneg" in one] == []
        assert (TITLE.lower() in webui.get("scripts")["txt2img"]) == runs
        asked = {"alwayson_scripts": {TITLE: {"args": [True, 1]}}} if runs else {}
        assert ("LazyNeg" in webui(steps=2, **asked).infotext) == runs
