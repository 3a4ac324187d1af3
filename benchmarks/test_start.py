"""What the extension adds to the start of a real WebUI and of its page; how fast commands start."""

from __future__ import annotations

import compileall
import resource
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.measuring import quartiles
from benchmarks.servers import EXTENSIONS, Servers, data_beside, started, told_of_start
from tests.browser.conftest import Page, browser
from tests.host.conftest import ROOT
from tests.host.hosts import Host

__all__ = ["browser"]

PARTS = ("loading the script", "callbacks before the page", "controls")
COMMANDS = {"--help": 0, "sweep --nonsense": 2}


def test_loading_imports_only_our_own(servers: Servers) -> None:
    """All else the host has loaded before."""
    loaded = told_of_start(servers.ours)["modules"]
    assert "lazyneg.webui.script" in loaded
    assert [name for name in loaded if name.partition(".")[0] != "lazyneg"] == []
    assert "modules" not in told_of_start(servers.without)


def test_start_of_the_host(
    benchmark: Any, host: Host, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not the first one after an installation, in which Python compiles."""
    subprocess.run(
        [host.python, "-m", "compileall", "-q", "lazyneg/core", "lazyneg/webui"],
        cwd=ROOT,
        check=True,
    )
    told: list[dict[str, float]] = []

    def start() -> None:
        folder = tmp_path_factory.mktemp("start") / "data"
        with started(host, data_beside(servers.data, folder, EXTENSIONS)) as server:
            told.append(told_of_start(server))

    benchmark.pedantic(start, rounds=3)
    benchmark.extra_info["ms"] = quartiles([sum(one[part] for part in PARTS) * 1e3 for one in told])
    benchmark.extra_info["parts"] = {
        part: quartiles([one[part] * 1e3 for one in told]) for part in PARTS
    }


def test_start_of_the_page(benchmark: Any, browser: Any, servers: Servers) -> None:
    """Time in our script, and in what it calls, until the page is there."""
    found: list[float] = []

    def load() -> None:
        context = browser.new_context()
        page = context.new_page()
        developer = context.new_cdp_session(page)
        developer.send("Profiler.enable")
        # In µs.
        developer.send("Profiler.setSamplingInterval", {"interval": 100})
        developer.send("Profiler.start")
        Page(page, servers.ours, "light").load()
        found.append(_in_script(developer.send("Profiler.stop")["profile"], "lazyneg.js"))
        context.close()

    benchmark.pedantic(load, rounds=5, warmup_rounds=1)
    benchmark.extra_info["ms"] = quartiles(found[1:])


def _in_script(profile: dict[str, Any], script: str) -> float:
    """Milliseconds of a profile in functions of a script and in what they call."""
    inside: set[int] = set()
    # Parents come before their children.
    for node in profile["nodes"]:
        if script in node["callFrame"]["url"] or node["id"] in inside:
            inside |= {node["id"], *node.get("children", ())}
    assert inside, f"{script} did not run"
    spent = zip(profile["samples"], profile["timeDeltas"], strict=True)
    return float(sum(time for node, time in spent if node in inside)) / 1e3


@pytest.mark.parametrize("command", COMMANDS)
def test_start_of_a_command(benchmark: Any, command: str) -> None:
    """In a fresh process; as installed, compiled."""
    compileall.compile_dir(ROOT / "lazyneg", quiet=1)
    found: list[float] = []

    def run() -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        made = subprocess.run(
            [sys.executable, "-m", "lazyneg", *command.split()], cwd=ROOT, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert made.returncode == COMMANDS[command], made.stderr
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)

    benchmark.pedantic(run, rounds=15, warmup_rounds=1)
    benchmark.extra_info["ms"] = quartiles([seconds * 1e3 for seconds in found[1:]])
