"""The ratios of one run, or of two: ``python -m benchmarks.table ONE.json TWO.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Run = Mapping[str, Mapping[str, Any]]
"""What was found of each benchmark, by its name."""

COLUMNS = {
    "cpu": "CPU time, times plain",
    "wall": "wall time, times plain",
    "call": "CPU time of a denoiser call",
    "added": "µs a step (CPU)",
    "ms": "ms (CPU)",
}
COUNTS = {
    "denoiser calls": "denoiser calls",
    "denoiser rows": "rows",
    "text encoder calls": "text encoder calls",
    "our functions": "calls of our functions",
    "peak MB": "peak MB",
}


def read(path: Path) -> Run:
    """The benchmarks of a file that pytest-benchmark wrote."""
    benchmarks = json.loads(path.read_text("utf-8"))["benchmarks"]
    return {made["name"]: made["extra_info"] for made in benchmarks}


def spread(values: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = values
    digits = 3 if abs(middle) < 10 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(runs: Sequence[Run]) -> str:
    """A table of runs: a line for each benchmark and run.

    Where two runs of a benchmark disagree by more than their quartiles, the second line says so.
    """
    lines = [["benchmark", *COLUMNS.values(), *COUNTS.values(), ""]]
    for name in runs[0]:
        before: Mapping[str, Any] | None = None
        for run in runs:
            found = run.get(name)
            if found is None:
                continue
            main = next(column for column in COLUMNS if column in found)
            apart = before is not None and (
                found[main][0] > before[main][2] or found[main][2] < before[main][0]
            )
            lines.append(
                [
                    name if before is None else "",
                    *(spread(found[column]) if column in found else "" for column in COLUMNS),
                    *(f"{found[count]:g}" if count in found else "" for count in COUNTS),
                    "differs" if apart else "",
                ]
            )
            before = found
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )


if __name__ == "__main__":
    sys.stdout.write(table([read(Path(name)) for name in sys.argv[1:]]) + "\n")
