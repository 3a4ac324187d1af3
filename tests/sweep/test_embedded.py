"""What the commands do by default, on the embedded model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import lazyneg
from lazyneg import demo
from lazyneg.cli import app

FEW = ["--steps", "2", "--device", "cpu"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def test_compare_paints_with_it(tmp_path: Path) -> None:
    run("compare", "girl", "--negative", "hat", "--critical-step", 1, "--seed", 3, *FEW,
        "--output", tmp_path)  # fmt: skip
    with lazyneg.lazy_negative(demo.pipeline(), 1) as pipe:
        generator = torch.Generator().manual_seed(3)
        made = pipe(
            "girl", negative_prompt="hat", num_inference_steps=2, guidance_scale=7.0,
            generator=generator,
        ).images[0]  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(tmp_path / "delayed.png")), np.asarray(made))


def test_sweep_looks_for_what_the_negative_names(tmp_path: Path) -> None:
    result = run(
        "sweep", "--prompt", "girl", "--negative", "wearing glasses", "--negative", "ugly",
        "--seeds", "0-1", "--critical-steps", "0,1", *FEW, "--output", tmp_path,
    )  # fmt: skip
    assert "girl, without wearing glasses (glasses): " in result.stdout
    assert "girl, without ugly: no choice: no detector knows" in result.stdout
    table = pd.read_csv(tmp_path / "pictures.csv")
    assert table["has glasses"].between(0, 1).all()
    # Glasses have a region, ugly has none.
    assert set(table[table.mse_outside.notna()].negative) == {"wearing glasses"}


@pytest.mark.parametrize(
    ("negative", "title"),
    [
        ("white cat", "cat, without white cat (white fur)"),
        ("Grey cat, hat", "cat, without Grey cat, hat (grey fur)"),
        ("cat", "cat, without cat"),
    ],
)
def test_the_colour_of_a_cat_is_that_of_its_fur(tmp_path: Path, negative: str, title: str) -> None:
    result = run(
        "sweep", "--prompt", "cat", "--negative", negative, "--seeds", "0", *FEW,
        "--critical-steps", "0", "--output", tmp_path,
    )  # fmt: skip
    assert f"{title}: no choice" in result.stdout


def test_a_prompt_can_ask_for_the_colour_that_the_negative_is_against(tmp_path: Path) -> None:
    run(
        "sweep", "--prompt", "white cat", "--prompt", "grey cat", "--negative", "white cat",
        "--seeds", "0", *FEW, "--critical-steps", "0", "--output", tmp_path,
    )  # fmt: skip
    _, white, grey = (tmp_path / "report.md").read_text("utf-8").split("\n## ")[:3]
    assert "The prompt asks for what the negative prompt is against." in white
    assert "The prompt asks for" not in grey


def test_sweep_names_the_objects_it_knows(tmp_path: Path) -> None:
    result = run(
        "sweep", "--prompt", "girl", "--negative", "hat", "--object", "dog", *FEW,
        "--output", tmp_path,
    )  # fmt: skip
    assert "dog; allowed: " in result.stderr
    assert "glasses" in result.stderr
