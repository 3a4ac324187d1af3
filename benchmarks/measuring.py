"""Two calls measured side by side."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[], Any]


def side_by_side(
    benchmark: Any, pipe: Any, call: Call, beside: Call, rounds: int, steps: int
) -> None:
    """Measures a call and another, in turns, so that what else the machine does weighs on both.

    Args:
        benchmark: The fixture of pytest-benchmark, which gets median and quartiles of the ratios,
            and counts.
        pipe: The pipeline whose models are counted.
        call: The call.
        beside: What it is compared with.
        rounds: How often each is made, after once to warm up.
        steps: Denoiser steps of a call, over which the difference is spread.
    """
    beside()
    benchmark.extra_info.update(_counts(pipe, call))
    base: list[tuple[float, float]] = []
    made: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: made.append(_times(call)),
        setup=lambda: base.append(_times(beside)),
        rounds=rounds,
    )
    pairs = list(zip(made, base, strict=True))
    figures = {
        "cpu": [one[0] / two[0] for one, two in pairs],
        "wall": [one[1] / two[1] for one, two in pairs],
        "added": [(one[0] - two[0]) / steps * 1e6 for one, two in pairs],
    }
    for name, values in figures.items():
        benchmark.extra_info[name] = statistics.quantiles(values, method="inclusive")
    benchmark.extra_info["peak MB"] = round(_peak(call), 1)


def _counts(pipe: Any, call: Call) -> dict[str, int]:
    """Calls of the denoiser and of the text encoder in a call, and rows of the former."""
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


def _times(call: Call) -> tuple[float, float]:
    """CPU time of this process and wall time, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def _peak(call: Call) -> float:
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
