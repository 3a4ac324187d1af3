"""What a sweep saves by computing no step twice, on the embedded model."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measuring import pipelines_side_by_side
from lazyneg import demo
from lazyneg.painting.painter import Painter
from lazyneg.painting.ranks import Ranks
from lazyneg.sweep import making
from lazyneg.sweep.plan import Grid, Plan

CRITICAL_STEPS = {"default": [0, 1, 2, 3, 5, 8, 10, 15], "all": [*range(21)]}


class Alone(Painter):
    """Computes each step of each picture."""

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("name", CRITICAL_STEPS)
def test_a_sweep_beside_pictures_of_their_own(benchmark: Any, name: str) -> None:
    painter, alone = (
        kind(demo.CHECKPOINT, demo.CONFIG, [], "cpu", None) for kind in (Painter, Alone)
    )
    parameters = {"Steps": "20", "CFG scale": "7"}
    grid = Grid(["girl"], ["hat"], [0], CRITICAL_STEPS[name], [0], "steps", parameters, 1)
    plan = Plan(grid, painter.steps(parameters), painter.made_with())

    def sweep(with_painter: Painter) -> None:
        with tempfile.TemporaryDirectory() as folder:
            making.make(plan, with_painter, Path(folder), Ranks())

    shared, each_alone = (functools.partial(sweep, one) for one in (painter, alone))
    steps = plan.iterations * len(plan.batches)
    pipelines_side_by_side(benchmark, painter.pipe, shared, each_alone, rounds=3, steps=steps)
