"""What a delay costs in diffusers, beside other ways to do the same.

Each round is a plain call and then one with a delay, so that what else the machine does weighs on
both alike; the figures are the ratios of the rounds.
"""

from __future__ import annotations

import gc
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.ways import STEPS, WAYS, Call, empty_pipeline, plain
from tests.diffusers.tiny import pipeline

ROUNDS = 15


def measured(call: Call) -> tuple[float, float]:
    """CPU time of this process and wall time, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak(call: Call) -> float:
    """Memory that a call takes at most beyond what is there before, in MB; 0 where unknown."""
    status, marks = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not marks.exists():
        return 0

    def size(key: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(key))
        return int(line.split()[1])

    gc.collect()
    # Begins the high-water mark anew.
    marks.write_text("5")
    before = size("VmRSS")
    call()
    return (size("VmHWM") - before) / 1024


def counts(pipe: Any, call: Call) -> dict[str, int]:
    rows: list[int] = []
    texts: list[int] = []
    hooks = [
        pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))),
        pipe.text_encoder.register_forward_pre_hook(lambda *_: texts.append(1)),
    ]
    call()
    for hook in hooks:
        hook.remove()
    return {
        "denoiser calls": len(rows),
        "denoiser rows": sum(rows),
        "text encoder calls": len(texts),
    }


@pytest.mark.parametrize("name", WAYS)
def test_a_call(benchmark: Any, name: str) -> None:
    pipe, other = empty_pipeline(), empty_pipeline()
    call, beside = WAYS[name](pipe), plain(other)
    for once in (call, beside):
        once()
    base: list[tuple[float, float]] = []
    made: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: made.append(measured(call)),
        setup=lambda: base.append(measured(beside)),
        rounds=ROUNDS,
    )
    pairs = list(zip(made, base, strict=True))
    figures = {
        "cpu": [one[0] / two[0] for one, two in pairs],
        "wall": [one[1] / two[1] for one, two in pairs],
        "added": [(one[0] - two[0]) / STEPS * 1e6 for one, two in pairs],
    }
    for key, values in figures.items():
        benchmark.extra_info[key] = statistics.quantiles(values, method="inclusive")
    benchmark.extra_info.update(counts(pipe, call))
    benchmark.extra_info["peak MB"] = round(peak(call), 1)


@pytest.mark.parametrize("name", ["article's method, 5", "step callback, 5"])
def test_the_other_ways_give_the_same(name: str) -> None:
    made = [torch.as_tensor(WAYS[way](pipeline("sd"))()[0]) for way in (name, "delayed to 5")]
    assert torch.equal(*made)
    assert not torch.equal(made[0], torch.as_tensor(plain(pipeline("sd"))()[0]))
