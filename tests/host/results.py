"""What the tests on real WebUIs found, kept as a file and shown as the table of hosts in the docs.

``pytest tests/host tests/browser --host-results docs/hosts.json`` writes the file, entry by entry
for the hosts that ran; ``python -m tests.host.results`` puts the table into its page.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "hosts.json"
PAGE = ROOT / "docs" / "hosts.md"
MARKS = "<!-- hosts -->\n", "<!-- /hosts -->\n"

FEATURES = {
    "Loads; arguments, errors and infotext by the API": ("test_contract", "test_api"),
    "Samplers": ("test_samplers",),
    "Requests of all kinds, hires pass, early prompt": ("test_requests",),
    "Model families, refiner": ("test_models",),
    "Prompt tag": ("test_tag",),
    "X/Y/Z plot": ("test_xyz_plot",),
    "Area and adaptive": ("test_choice",),
    "Comparison by script": ("test_comparison",),
    "Nothing leaks between requests": ("test_leaks",),
    "Random requests, two clients and a browser": ("test_soak",),
    "Other extensions at work beside it": ("test_neighbours",),
    "Accordion in a browser": (
        "test_timeline",
        "test_keeping",
        "test_localization",
        "test_comparison_page",
        "test_tag_page",
        "test_xyz_page",
    ),
}
"""Rows of the table, with the test files that they are made from."""


class Recorder:
    """Counts what became of the tests of each file, for each host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hosts: dict[str, str] = {}
        """The host of each test, by its id."""
        self.counts: dict[str, dict[str, Counter[str]]] = {}
        self.versions: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            host = getattr(item, "callspec", None) and item.callspec.params.get("host")  # type: ignore[attr-defined]
            if host:
                self.hosts[item.nodeid] = host.kind.name

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        host = self.hosts.get(report.nodeid)
        # A test that was skipped or broke before its body has no call.
        if host is None or (report.when != "call" and report.outcome == "passed"):
            return
        path = Path(report.nodeid.split("::")[0])
        name = path.stem + ("_page" if path.parent.name == "browser" else "")
        name = name if any(name in files for files in FEATURES.values()) else path.stem
        self.counts.setdefault(host, {}).setdefault(name, Counter())[report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        known = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}
        for host, counts in self.counts.items():
            entry = known.setdefault(host, {"files": {}})
            entry["date"] = datetime.date.today().isoformat()
            entry["version"] = self.versions.get(host, entry.get("version", "unknown"))
            entry["files"] |= {name: dict(sorted(one.items())) for name, one in counts.items()}
        text = json.dumps(known, indent=2, sort_keys=True) + "\n"
        self.path.write_text(text, "utf-8")


def table(known: dict[str, Any]) -> str:
    """The table of hosts."""
    hosts = list(known)
    rows = [
        ["", *hosts],
        ["---"] * (len(hosts) + 1),
        ["version", *(known[host]["version"] for host in hosts)],
        ["tried on", *(known[host]["date"] for host in hosts)],
    ]
    for feature, files in FEATURES.items():
        counts = [
            sum((Counter(known[host]["files"].get(file, {})) for file in files), Counter())
            for host in hosts
        ]
        rows.append([feature, *map(_cell, counts)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(counts: Counter[str]) -> str:
    if not counts:
        return "not tried"
    words = [f"{counts['passed']} ✓", f"{counts['failed']} ✗", f"{counts['skipped']} not there"]
    return ", ".join(word for word in words if not word.startswith("0 "))


def with_table(page: str, known: dict[str, Any]) -> str:
    """The page with the table put in."""
    before, rest = page.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return before + MARKS[0] + table(known) + MARKS[1] + after


if __name__ == "__main__":
    page = PAGE.read_text("utf-8")
    PAGE.write_text(with_table(page, json.loads(FILE.read_text("utf-8"))), "utf-8")
