"""The notebook runs, and shows in each cell what it was saved with."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "first-steps.ipynb"
NUMBER = r"\d+(?:\.\d+)?"


def shown(cell: Any) -> tuple[list[str], list[float]]:
    """The words and the numbers that a cell shows; of a picture, its size."""
    words: list[str] = []
    numbers: list[float] = []
    for output in cell.get("outputs", []):
        if "data" in output:
            words.append("picture")
            picture = base64.b64decode(output["data"]["image/jpeg"])
            numbers += Image.open(io.BytesIO(picture)).size
        elif output["name"] == "stdout":
            words += re.split(NUMBER, output["text"])
            numbers += map(float, re.findall(NUMBER, output["text"]))
    return words, numbers


def test_it_runs_and_shows_what_it_was_saved_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    saved = nbformat.read(FILE, as_version=4)
    run = nbformat.read(FILE, as_version=4)
    nbclient.NotebookClient(run, timeout=300, startup_timeout=300, kernel_name="python3").execute()
    for cell, kept in zip(run.cells, saved.cells, strict=True):
        (words, numbers), (kept_words, kept_numbers) = shown(cell), shown(kept)
        assert words == kept_words
        # Another machine rounds otherwise.
        assert numbers == pytest.approx(kept_numbers, abs=1)
    assert sum(len(cell.get("outputs", [])) for cell in saved.cells) == 4


def test_it_is_small() -> None:
    assert FILE.stat().st_size < 50_000
