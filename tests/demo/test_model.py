"""The weights in the package."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import lazyneg
from lazyneg import demo
from lazyneg.cli import app
from lazyneg.demo import CHECKPOINT, evaluation
from lazyneg.demo.detector import FILE, Detector
from lazyneg.demo.evaluation import Job
from lazyneg.demo.scenes import FACTS
from lazyneg.painting.models import short_hash
from lazyneg.sweep.report import number_text, share_text
from lazyneg.sweep.summary import Estimate

HERE = Path(__file__).parent
MEASUREMENTS = HERE.parents[1] / "docs" / "measurements"


@cache
def pipe() -> Any:
    loaded = demo.pipeline()
    loaded.set_progress_bar_config(disable=True)
    return loaded


def paint(prompt: str, negative: str = "", seeds: range = range(8)) -> list[Image.Image]:
    return evaluation.paint(pipe(), [Job(prompt, negative, seed, 5.0) for seed in seeds])


def share(pictures: list[Image.Image], fact: str) -> float:
    return float((Detector()(pictures)[:, FACTS.index(fact)] >= 0.5).mean())


def test_the_weights_are_small() -> None:
    files = [CHECKPOINT, FILE]
    assert sum(file.stat().st_size for file in files) <= 10_000_000


@pytest.mark.parametrize(
    ("prompt", "facts"),
    [
        ("cat wearing glasses", ("cat", "glasses")),
        ("girl with a balloon, blue background", ("girl", "balloon", "blue background")),
        ("boy with red hair wearing a blue hat", ("boy", "hat", "blue hat")),
    ],
)
def test_it_draws_what_it_is_asked_for(prompt: str, facts: tuple[str, ...]) -> None:
    pictures = paint(prompt)
    for fact in facts:
        assert share(pictures, fact) >= 0.75, fact


def test_a_negative_prompt_removes_and_a_late_one_does_not() -> None:
    assert share(paint("girl eating pizza"), "glasses") >= 0.75
    assert share(paint("girl eating pizza", "glasses"), "glasses") <= 0.25
    with lazyneg.lazy_negative(pipe(), critical_step=18):
        late = paint("girl eating pizza", "glasses")
    assert share(late, "glasses") >= 0.75


def test_the_encoder_gives_a_picture_back() -> None:
    """For img2img: what the decoder makes of the encoder's latents is the picture."""
    picture = paint("girl with red hair", seeds=range(1))[0]
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latents = pipe().vae.encode(values).latent_dist.mean
        again = pipe().vae.decode(latents).sample
    assert (again - values).square().mean() < 0.02


def test_the_folder_for_a_webui_is_complete(tmp_path: Path) -> None:
    name = CHECKPOINT.stem
    shown = CliRunner().invoke(app, ["webui-model", str(tmp_path)])
    assert shown.output.splitlines()[-1] == str(tmp_path / CHECKPOINT.name)
    assert (tmp_path / f"{name}.safetensors").read_bytes() == CHECKPOINT.read_bytes()
    assert str(tmp_path / name) in (tmp_path / f"{name}.yaml").read_text()
    assert {path.name for path in (tmp_path / name).iterdir()} >= {
        "config.json",
        "merges.txt",
        "tokenizer_config.json",
        "vocab.json",
    }


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["webui-model", str(tmp_path / "modles")])
    assert shown.exit_code == 2
    assert "modles" in shown.output
    assert not list(tmp_path.iterdir())


def test_what_was_measured_was_this_model() -> None:
    model = short_hash(CHECKPOINT)
    assert json.loads((CHECKPOINT.parent / "quality.json").read_text())["model"] == model
    assert f"`{model}`" in (MEASUREMENTS / "README.md").read_text("utf-8")


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(MEASUREMENTS / f"{name}.csv")


def estimate(line: Any, measure: str) -> Estimate | None:
    parts = [line[f"{measure}_{part}"] for part in ("value", "low", "high", "seeds")]
    return None if pd.isna(parts[0]) else Estimate(*parts)


@pytest.mark.parametrize(
    "name",
    [
        "girl-eating-pizza-glasses",
        "boy-hat",
        "cat-balloon",
        "girl-glasses-and-hat",
        "cat-monochrome",
        "wearing-glasses-glasses",
    ],
)
def test_the_tables_say_what_was_measured(name: str) -> None:
    text = (MEASUREMENTS / "README.md").read_text("utf-8")
    for _, line in table(name).iterrows():
        shares = [share_text(estimate(line, measure)) for measure in ("removal", "induction")]
        numbers = [
            number_text(estimate(line, measure))
            for measure in ("ssim", "mse", "mse_present", "mse_absent")
        ]
        assert f"| {' | '.join([line.setting, *shares, *numbers])} |" in text


def test_the_readme_says_what_was_measured() -> None:
    text = (MEASUREMENTS.parents[1] / "README.md").read_text("utf-8")
    lines = table("girl-eating-pizza-glasses").set_index("setting").loc
    for step in (0, 1, 2, 3, 5, 10):
        line = lines[f"from {step}"]
        removed, changed = estimate(line, "removal"), estimate(line, "mse_present")
        assert removed
        assert changed
        assert (
            f"| {step} | {removed.value:.0%} ({removed.low:.0%} to {removed.high:.0%}) "
            f"| {changed.value:.4f} ({changed.low:.4f} to {changed.high:.4f}) |"
        ) in text


@pytest.mark.parametrize(
    "measured", [CHECKPOINT.parent / "quality.json", MEASUREMENTS / "quality-second-training.json"]
)
def test_the_card_says_what_was_measured(measured: Path) -> None:
    card = (MEASUREMENTS.parent / "demo-model.md").read_text("utf-8")
    assert evaluation.table(json.loads(measured.read_text())) in card


def test_the_detector_agrees_with_eyes() -> None:
    """100 pictures of the model, in rows of ten, and what a person saw in them."""
    with Image.open(HERE / "labelled.png") as sheet:
        assert sheet.info["Model hash"] == short_hash(CHECKPOINT)
        side = sheet.width // 10
        pictures = [
            sheet.crop((side * column, side * row, side * (column + 1), side * (row + 1)))
            for row in range(10)
            for column in range(10)
        ]
    seen: dict[str, list[int]] = json.loads((HERE / "labelled.json").read_text())
    found = Detector()(pictures) >= 0.5
    for name, numbers in seen.items():
        labels = np.isin(np.arange(100), numbers)
        column = found[:, FACTS.index(name)]
        assert (column == labels).mean() >= 0.97, name
        # Some facts are rare.
        assert column[labels].mean() >= 0.8, name
