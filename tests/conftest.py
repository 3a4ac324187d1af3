from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Machines that run these are shared: how long an example takes says nothing.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--host-results", type=Path, help="file to keep what the tests on real WebUIs found in"
    )
    parser.addoption(
        "--soak-requests", type=int, default=60, help="requests of the soak on a real WebUI"
    )
    parser.addoption("--soak-seed", type=int, help="seed of these; drawn if not given")


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--host-results"):
        from tests.host.results import Recorder

        config.pluginmanager.register(Recorder(path), "host-results")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion in a folder."""
    # Here, as not every test needs diffusers.
    from tests.diffusers.tiny import pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipeline("sd").save_pretrained(folder)
    return folder
