from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

from .conftest import ROOT, WebUI

EXAMPLE = ROOT / "examples" / "webui"


def test_the_articles_three_pairs(webui: WebUI, tmp_path: Path) -> None:
    """The example checks by itself that each infotext makes its picture again."""
    command: list[str | Path] = [
        sys.executable,
        EXAMPLE / "compare.py",
        "--url",
        webui.url,
        "--output",
        tmp_path,
    ]
    subprocess.run([*command, "--size", "64"], check=True)
    for case in EXAMPLE.glob("*.json"):
        request = json.loads(case.read_text())
        pair = [Image.open(tmp_path / f"{case.stem}-{name}.png") for name in ("plain", "lazy")]
        texts = [picture.info["parameters"] for picture in pair]
        for text in texts:
            assert text.startswith(
                f"{request['prompt']}\nNegative prompt: {request['negative_prompt']}"
            )
            assert "Steps: 50" in text
        assert ["LazyNeg critical step: 5" in text for text in texts] == [False, True]
        assert pair[0].tobytes() != pair[1].tobytes()
