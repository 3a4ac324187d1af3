"""The pictures themselves, made by a real pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import lazyneg
from lazyneg.core.settings import Settings
from lazyneg.painting import metadata
from lazyneg.painting.infotext import Infotext, parse
from lazyneg.painting.painter import Painter
from lazyneg.painting.ranks import Ranks
from lazyneg.sweep import making
from lazyneg.sweep.plan import Grid, Plan

PARAMETERS = {"Steps": "4", "CFG scale": "7", "Size": "32x16"}
GRID = Grid(["girl"], ["glasses"], [7, 8, 9], [0, 2, 4], [0, 3], "steps", PARAMETERS, 2)


@pytest.fixture
def plan(painter: Painter) -> Plan:
    return Plan(GRID, painter.iterations(PARAMETERS), painter.made_with())


def make(plan: Plan, painter: Painter, folder: Path) -> dict[str, bytes]:
    making.make(plan, painter, folder, Ranks())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def called(model: Path, seeds: list[int], negative: str, **delay: Any) -> list[Any]:
    """Pictures of a plain call of the pipeline."""
    pipe = StableDiffusionPipeline.from_pretrained(model)
    with lazyneg.lazy_negative(pipe, **delay):
        made = pipe(
            ["girl"] * len(seeds),
            negative_prompt=[negative] * len(seeds),
            width=32,
            height=16,
            num_inference_steps=4,
            guidance_scale=7.0,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )
    return [np.asarray(image) for image in made.images]


@pytest.mark.parametrize(
    ("label", "negative", "delay"),
    [
        ("no negative", "", {"critical_step": 0}),
        ("from 0", "glasses", {"critical_step": 0}),
        ("from 2", "glasses", {"critical_step": 2}),
        ("from 4", "", {"critical_step": 0}),
        ("from 0 until 3", "glasses", {"critical_step": 0, "stop_step": 3}),
        ("from 2 until 3", "glasses", {"critical_step": 2, "stop_step": 3}),
    ],
)
def test_pictures_are_those_of_the_pipeline(
    model: Path,
    painter: Painter,
    plan: Plan,
    tmp_path: Path,
    label: str,
    negative: str,
    delay: dict[str, int],
) -> None:
    make(plan, painter, tmp_path)
    row = next(row for row in plan.rows("girl", "glasses") if row.label == label)
    wanted = called(model, [7, 8], negative, **delay) + called(model, [9], negative, **delay)
    for seed, picture in zip(GRID.seeds, wanted, strict=True):
        path = tmp_path / plan.name(row.painting, seed)
        assert np.array_equal(np.asarray(Image.open(path)), picture)
        text = parse(metadata.infotext_of(path) or "")
        assert (text.prompt, text.negative) == ("girl", negative)
        assert text.parameters["Seed"] == str(seed)
        assert Settings.from_infotext(text.parameters) == row.painting.settings


def test_makes_only_what_is_missing_or_broken(
    painter: Painter, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make(plan, painter, tmp_path)
    assert len(before) == 5 * 3
    names = [plan.name(plan.paintings[2], seed) for seed in GRID.seeds]
    (tmp_path / names[0]).write_bytes(before[names[0]][:-20])
    (tmp_path / names[2]).unlink()
    painted: list[tuple[int, ...]] = []
    paint_batch = painter.paint_batch

    def watched(job: Infotext, seeds: tuple[int, ...], settings: Settings) -> Any:
        painted.append(seeds)
        return paint_batch(job, seeds, settings)

    monkeypatch.setattr(painter, "paint_batch", watched)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert making.missing(plan, tmp_path)[4:6] == [[names[0]], [names[2]]]
    # A part of a batch gets the bytes it had in the whole batch.
    assert make(plan, painter, tmp_path) == before
    assert painted == [(7, 8), (9,)]
    kept = {
        path.name for path in tmp_path.iterdir() if times.get(path.name) == path.stat().st_mtime_ns
    }
    assert kept == before.keys() - {names[0], names[2]}
    painted.clear()
    assert make(plan, painter, tmp_path) == before
    assert painted == []


def test_other_settings_do_not_mix(painter: Painter, plan: Plan, tmp_path: Path) -> None:
    before = make(plan, painter, tmp_path)
    wider = {**PARAMETERS, "Size": "48x16"}
    other = Plan(
        Grid(["girl"], ["glasses"], [7], [0], [0], "steps", wider, 2), 4, painter.made_with()
    )
    after = make(other, painter, tmp_path)
    assert before.items() < after.items()
    assert len(after) == len(before) + 2


@pytest.mark.parametrize("sampler", ["DDIM", "Euler a", "DPM++ SDE", "DPM++ 2M SDE"])
def test_a_picture_depends_on_its_own_seed_alone(painter: Painter, sampler: str) -> None:
    job = Infotext("girl", "glasses", {**PARAMETERS, "Sampler": sampler})
    settings = Settings.parse({"enabled": True, "critical_step": 2})
    painted = [
        {
            seed: np.asarray(picture)
            for seed, (picture, _) in zip(seeds, painter.paint_batch(job, seeds, settings))
        }
        for seeds in ([1, 2, 3], [3, 4, 1])
    ]
    assert np.array_equal(painted[0][1], painted[1][1])
    assert np.array_equal(painted[0][3], painted[1][3])
    assert not np.array_equal(painted[0][1], painted[0][3])


@pytest.mark.parametrize(
    ("sampler", "iterations"), [("DDIM", 4), ("Euler a", 4), ("Heun", 7), ("PLMS", 5)]
)
def test_counts_the_iterations_of_a_sampler(
    painter: Painter, sampler: str, iterations: int
) -> None:
    wanted = {**PARAMETERS, "Sampler": sampler}
    assert painter.iterations(wanted) == iterations
    seen: list[int] = []

    def step_ended(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return tensors

    painter.pipe(
        "girl", num_inference_steps=4, width=32, height=16, callback_on_step_end=step_ended
    )
    assert len(seen) == iterations
