"""Two calls measured side by side."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Call = Callable[[], Any]
Timed = Callable[[], Mapping[str, float]]
"""Makes a call and gives its times in seconds, by kind."""


def side_by_side(benchmark: Any, timed: Timed, beside: Timed, rounds: int, steps: int) -> None:
    """Measures a call and another, in turns, so that what else the machine does weighs on both.

    Args:
        benchmark: The fixture of pytest-benchmark, which gets median and quartiles of the ratios.
        timed: The call.
        beside: What it is compared with; warmed up, like the call.
        rounds: How often each is made.
        steps: Denoiser steps of a call, over which the difference is spread.
    """
    base: list[Mapping[str, float]] = []
    made: list[Mapping[str, float]] = []
    benchmark.pedantic(
        lambda: made.append(timed()),
        setup=lambda: base.append(beside()),
        rounds=rounds,
    )
    pairs = list(zip(made, base, strict=True))
    figures = {kind: [one[kind] / two[kind] for one, two in pairs] for kind in made[0]}
    figures["added"] = [(one["cpu"] - two["cpu"]) / steps * 1e6 for one, two in pairs]
    for kind, values in figures.items():
        benchmark.extra_info[kind] = quartiles(values)


def quartiles(values: list[float]) -> list[float]:
    """The lower one, the median and the upper one."""
    return statistics.quantiles(values, method="inclusive")


def pipelines_side_by_side(
    benchmark: Any, pipe: Any, call: Call, beside: Call, rounds: int, steps: int
) -> None:
    """The same for two calls of pipelines; also counts what the models of ``pipe`` do."""
    beside()
    benchmark.extra_info.update(counts(pipe, call))
    side_by_side(benchmark, lambda: times(call), lambda: times(beside), rounds, steps)
    benchmark.extra_info["peak MB"] = peak(call)


def counts(pipe: Any, call: Call) -> dict[str, int]:
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


def times(call: Call) -> dict[str, float]:
    """CPU time of this process and wall time of a call, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def peak(call: Call, process: str = "self") -> float:
    """Memory that a process takes at most in a call beyond what it has, in MB; 0 where unknown."""
    status, marks = (Path("/proc", process, name) for name in ("status", "clear_refs"))
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
    return round((size("VmHWM") - before) / 1024, 1)
