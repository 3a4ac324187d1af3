"""What a delay costs in diffusers, beside other ways to do the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.measuring import pipelines_side_by_side
from benchmarks.ways import STEPS, WAYS, empty_pipeline, plain
from tests.diffusers.tiny import pipeline


@pytest.mark.parametrize("name", WAYS)
def test_a_call(benchmark: Any, name: str) -> None:
    pipe = empty_pipeline()
    # Counted is a repeat, as measured are repeats.
    call = WAYS[name](pipe)
    call()
    pipelines_side_by_side(benchmark, pipe, call, plain(empty_pipeline()), rounds=15, steps=STEPS)


@pytest.mark.parametrize("name", ["article's method, 5", "step callback, 5"])
def test_the_other_ways_give_the_same(name: str) -> None:
    made = [torch.as_tensor(WAYS[way](pipeline("sd"))()[0]) for way in (name, "delayed to 5")]
    assert torch.equal(*made)
    assert not torch.equal(made[0], torch.as_tensor(plain(pipeline("sd"))()[0]))
