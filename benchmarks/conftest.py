from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
import torch

from benchmarks.servers import Servers, servers_of
from benchmarks.table import Run, table
from tests.host.conftest import host
from tests.host.hosts import Host

__all__ = ["host"]

PACKAGES = ("torch", "diffusers", "transformers", "lazyneg")
MEASURED = pytest.StashKey[Run]()


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["threads"] = torch.get_num_threads()
    machine_info["versions"] = {name: metadata.version(name) for name in PACKAGES}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: list[dict[str, Any]]) -> None:
    """Keeps what was found; pytest-benchmark itself groups it."""
    config.stash[MEASURED] = {
        made["name"]: made["extra_info"] for made in benchmarks if made["extra_info"]
    }


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if found := config.stash.get(MEASURED, None):
        terminalreporter.section("ratios, side by side")
        terminalreporter.write_line(table([found]))


@pytest.fixture(scope="session")
def servers(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers_of(host, tmp_path_factory.mktemp("servers")) as both:
        yield both
