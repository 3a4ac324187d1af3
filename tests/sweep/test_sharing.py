"""Pictures of a sweep share steps: the same files, and no step computed twice."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DConditionModel
from typer.testing import CliRunner

from lazyneg import demo
from lazyneg.cli import app
from lazyneg.cli.sweep import _work
from lazyneg.painting import pictures
from lazyneg.painting.painter import Painter
from lazyneg.painting.ranks import Ranks
from lazyneg.sweep import making
from lazyneg.sweep.plan import Grid, Plan

PARAMETERS = {"Steps": "5", "CFG scale": "7", "Size": "32x16"}
GRID = Grid(["girl"], ["hat", "glasses"], [7, 8, 9], [0, 1, 3], [0, 2], "steps", PARAMETERS, 2)


def plan_of(painter: Painter, grid: Grid) -> Plan:
    return Plan(grid, painter.steps(grid.parameters), painter.made_with())


def computed(painter: Painter, plan: Plan) -> dict[str, bytes]:
    """The files of a plan, each step of each picture computed."""
    painter.pipe.set_progress_bar_config(disable=True)
    found = {}
    for batch in plan.batches:
        painting = batch.painting
        painted = painter.paint_batch(plan.job(painting), batch.seeds, painting.settings)
        for seed, (picture, text) in zip(batch.seeds, painted, strict=True):
            file = io.BytesIO()
            pictures.save(picture, file, str(text))
            found[plan.name(painting, seed)] = file.getvalue()
    return found


def make(painter: Painter, plan: Plan, folder: Path) -> None:
    making.make(plan, painter, folder, Ranks())


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(painter: Painter) -> list[int]:
    """The rows of each call of the UNet to come."""
    found: list[int] = []
    painter.pipe.unet.register_forward_pre_hook(lambda _, args: found.append(len(args[0])))
    return found


@pytest.mark.parametrize(
    "sampler",
    ["DDIM", "Euler a", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ SDE", "DPM2 a", "Heun", "LMS", "UniPC"],
)
def test_the_files_are_those_of_pictures_of_their_own(
    painter: Painter, tmp_path: Path, sampler: str
) -> None:
    plan = plan_of(painter, replace(GRID, parameters={**PARAMETERS, "Sampler": sampler}))
    wanted = computed(painter, plan)
    assert len(set(wanted.values())) == len(wanted) == 3 * len(plan.paintings)
    make(painter, plan, tmp_path)
    assert files(tmp_path) == wanted


@pytest.mark.parametrize("unit", ["steps", "percent"])
def test_a_begun_folder_is_finished_with_the_same_bytes(
    painter: Painter, tmp_path: Path, unit: str
) -> None:
    in_percent = replace(GRID, unit="percent", critical_steps=[0, 20, 60], stop_steps=[0, 50])
    plan = plan_of(painter, GRID if unit == "steps" else in_percent)
    wanted = computed(painter, plan)
    make(painter, plan, tmp_path)
    for number, name in enumerate(sorted(wanted)):
        if number % 3 == 0:
            (tmp_path / name).unlink()
        elif number % 3 == 1:
            (tmp_path / name).write_bytes(wanted[name][:-20])
    seen = rows(painter)
    absent = making.missing(plan, tmp_path)
    todo = [batch for batch, names in zip(plan.batches, absent, strict=True) if names]
    make(painter, plan, tmp_path)
    assert files(tmp_path) == wanted
    assert sum(seen) == sum(
        2 * len(strand.batches[0].seeds) * sum(strand.steps) for strand in plan.strands(todo)
    )


def test_area_and_adaptive(painter: Painter, tmp_path: Path) -> None:
    plan = plan_of(painter, replace(GRID, areas=[100, 20], adaptive=[False, True]))
    wanted = computed(painter, plan)
    make(painter, plan, tmp_path)
    assert files(tmp_path) == wanted


def test_each_process_has_all_settings_of_its_seeds(painter: Painter) -> None:
    plan = plan_of(painter, replace(GRID, prompts=["girl", "boy"]))
    strands = plan.strands(plan.batches)
    for rank, seeds in enumerate([(7, 8), (9,)]):
        share = Ranks(rank, 2).share(strands)
        assert {batch.seeds for strand in share for batch in strand.batches} == {seeds}
        assert [len(strand.batches) for strand in share] == [11, 11]


@pytest.mark.parametrize(
    ("steps", "critical_steps", "stop_steps", "pictures_made", "least"),
    [
        (20, [0, 1, 2, 3, 5, 8, 10, 15], [0], 9, 136),
        (20, [*range(21)], [0], 21, 230),
        (30, [0, 1, 2, 3, 5, 8, 10], [0, 3, 5, 10, 15], 28, 617),
    ],
    ids=["default", "all", "with stops"],
)
def test_no_step_is_computed_twice(
    tmp_path: Path,
    steps: int,
    critical_steps: list[int],
    stop_steps: list[int],
    pictures_made: int,
    least: int,
) -> None:
    painter = Painter(demo.CHECKPOINT, demo.CONFIG, [], "cpu", None)
    parameters = {"Steps": str(steps), "CFG scale": "7", "Size": "64x64"}
    grid = Grid(["girl"], ["hat"], [0], critical_steps, stop_steps, "steps", parameters, 1)
    plan = plan_of(painter, grid)
    assert len(plan.paintings) == pictures_made
    assert f" {least} denoiser steps" in _work(plan, making.missing(plan, tmp_path))
    seen = rows(painter)
    make(painter, plan, tmp_path)
    # Each is guided.
    assert seen == [2] * least


def test_what_a_tape_keeps_ends_with_its_batches(painter: Painter, tmp_path: Path) -> None:
    plan = plan_of(painter, GRID)
    seen = rows(painter)
    make(painter, plan, tmp_path)
    once = len(seen)
    for path in tmp_path.iterdir():
        path.unlink()
    make(painter, plan, tmp_path)
    assert len(seen) == 2 * once


def test_compare_shares_too(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    forward = UNet2DConditionModel.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return forward(*args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", counted)
    size = ["--width", 32, "--height", 16, "--steps", 6, "--seed", 7, "--device", "cpu"]
    options = ["girl", "--negative", "hat", *size, "--model", model, "--output", tmp_path]
    for more, least in (
        (["--critical-step", 2], 6 + 4 + 6),
        (["--critical-step", 0, "--stop-step", 3], 6 + 6 + 3),
        (["--critical-step", 9], 6 + 0 + 6),
    ):
        calls.clear()
        arguments = map(str, ["compare", *options, *more])
        assert CliRunner().invoke(app, list(arguments), catch_exceptions=False).exit_code == 0
        assert len(calls) == least
