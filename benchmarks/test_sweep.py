"""What a sweep saves by computing no step twice, on the embedded model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring import counts, side_by_side
from lazyneg import demo
from lazyneg.painting.painter import Painter
from lazyneg.painting.ranks import Ranks
from lazyneg.sweep import making
from lazyneg.sweep.plan import Grid, Plan

CRITICAL_STEPS = {"default": [0, 1, 2, 3, 5, 8, 10, 15], "all": [*range(21)]}


@pytest.mark.parametrize("name", CRITICAL_STEPS)
def test_a_sweep_beside_pictures_of_their_own(benchmark: Any, name: str) -> None:
    painter = Painter(demo.CHECKPOINT, demo.CONFIG, [], "cpu", None)
    painter.pipe.set_progress_bar_config(disable=True)
    parameters = {"Steps": "20", "CFG scale": "7"}
    grid = Grid(["girl"], ["hat"], [0], CRITICAL_STEPS[name], [0], "steps", parameters, 1)
    plan = Plan(grid, painter.steps(parameters), painter.made_with())

    def each_alone() -> None:
        for batch in plan.batches:
            painting = batch.painting
            painter.paint_batch(plan.job(painting), batch.seeds, painting.settings)

    def sweep() -> None:
        with tempfile.TemporaryDirectory() as folder:
            making.make(plan, painter, Path(folder), Ranks())

    steps = plan.iterations * len(plan.batches)
    side_by_side(benchmark, sweep, each_alone, rounds=3, steps=steps)
    benchmark.extra_info.update(counts(painter.pipe, sweep))
