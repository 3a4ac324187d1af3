from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
import torch

from benchmarks.table import table

PACKAGES = ("torch", "diffusers", "transformers", "lazyneg")


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["threads"] = torch.get_num_threads()
    machine_info["versions"] = {name: metadata.version(name) for name in PACKAGES}


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    benchmarks = config._benchmarksession.benchmarks  # type: ignore[attr-defined]
    if benchmarks:
        terminalreporter.section("ratios, side by side")
        found = {made.name: made.extra_info for made in benchmarks}
        terminalreporter.write_line(table([found]))
