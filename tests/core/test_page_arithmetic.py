"""The page and the core agree on every step: one table of cases, made by the core, tests both.

After a change of the arithmetic: ``python -m tests.core.test_page_arithmetic`` writes it anew.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lazyneg.core.settings import Settings, SettingsError

TABLE = Path(__file__).with_name("step_cases.json")
SCRIPT = Path(__file__).parents[2] / "javascript" / "lazyneg.js"
FIELDS = ("critical_step", "unit", "stop_step", "hires", "hires_critical_step")


def cases() -> list[list[Any]]:
    """Settings, steps of the pass, whether it is the hires pass, and the steps that are active."""
    made = []
    for critical, stop, steps in itertools.product(
        (0, 1, 5, 25, 99, 150), (0, 6, 34, 151), (1, 8, 20, 37)
    ):
        for unit, hires in (("steps", "full"), ("steps", "same"), ("percent", "own")):
            chosen = (critical, unit, stop, hires, critical // 2)
            try:
                settings = Settings.parse({"enabled": True, **dict(zip(FIELDS, chosen))})
            except SettingsError:
                continue
            for hires_pass in (False, True):
                window = settings.window(steps, hires_pass=hires_pass)
                active = "".join("01"[window.active(step)] for step in range(steps))
                made.append([*chosen, steps, hires_pass, active])
    return made


def written(table: list[list[Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(case) for case in table) + "\n]\n"


def in_node(program: str) -> Any:
    """What a program prints that knows the page's ``lazyneg`` and the ``table``."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    source = f"{SCRIPT.read_text('utf-8')}\nconst table = {TABLE.read_text('utf-8')};\n{program}"
    done = subprocess.run([node, "-"], input=source, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_table_is_what_the_core_says() -> None:
    assert TABLE.read_text("utf-8") == written(cases())


def test_the_page_says_the_same() -> None:
    shown = in_node(
        """
        const fields = ["critical_step", "unit", "stop_step", "hires", "hires_critical_step"];
        console.log(JSON.stringify(table.map((row) => {
            const settings = Object.fromEntries(fields.map((field, i) => [field, row[i]]));
            const {critical, stop} = lazyneg.windowOf(settings, row[5], row[6]);
            return [...Array(row[5]).keys()].map((i) => Number(critical <= i && i < stop)).join("");
        })));
        """
    )
    assert shown == [case[-1] for case in json.loads(TABLE.read_text("utf-8"))]


def test_switching_the_unit_there_and_back_changes_no_step() -> None:
    """Up to 100 steps, where each has a percent of its own."""
    assert (
        in_node(
            """
        const wrong = [];
        for (let steps = 1; steps <= 100; steps += 1) {
            for (let critical = 0; critical <= steps; critical += 1) {
                for (const stop of [0, critical + 1, steps].filter((it) => !it || it > critical)) {
                    const before = {critical_step: critical, stop_step: stop, unit: "steps",
                        hires: "own", hires_critical_step: critical};
                    const percent = lazyneg.convert(before, "percent", steps, steps);
                    const after = lazyneg.convert(percent, "steps", steps, steps);
                    const same = (other) => [false, true].every((hires) =>
                        JSON.stringify(lazyneg.windowOf(other, steps, hires)) ===
                        JSON.stringify(lazyneg.windowOf(before, steps, hires)));
                    if (!same(percent) || !same(after)) wrong.push([before, percent, after]);
                }
            }
        }
        console.log(JSON.stringify(wrong.slice(0, 3)));
        """
        )
        == []
    )


def test_converted_settings_are_allowed() -> None:
    converted = in_node(
        """
        const rows = [];
        for (const steps of [1, 7, 20, 150]) {
            for (const [critical, stop] of [[0, 1], [3, 4], [5, 0], [99, 100], [140, 150]]) {
                for (const unit of ["steps", "percent"]) {
                    if (unit === "percent" && stop > 100) continue;
                    const other = unit === "steps" ? "percent" : "steps";
                    rows.push(lazyneg.convert({critical_step: critical, stop_step: stop, unit,
                        hires: "own", hires_critical_step: critical}, other, steps, steps));
                }
            }
        }
        console.log(JSON.stringify(rows));
        """
    )
    for settings in converted:
        assert Settings.parse({"enabled": True, **settings}).unit == settings["unit"]


def test_the_core_converts_as_the_page_does() -> None:
    cases = [
        ({"critical_step": critical, "stop_step": stop, "hires": "own",
          "hires_critical_step": hires, "unit": unit}, other, steps, hires_steps)
        for unit, other in (("steps", "percent"), ("percent", "steps"), ("steps", "steps"))
        for critical, stop, hires in ((5, 0, 0), (5, 15, 3), (0, 1, 7), (99, 100, 20), (33, 34, 50))
        for steps, hires_steps in ((20, 10), (1, 1), (7, 150), (33, 20), (150, 99))
    ]  # fmt: skip
    converted = in_node(
        f"""
        const cases = {json.dumps(cases)};
        console.log(JSON.stringify(cases.map((it) => lazyneg.convert(...it))));
        """
    )
    for (settings, unit, steps, hires_steps), expected in zip(cases, converted, strict=True):
        before = Settings.parse({"enabled": True, **settings})
        after = before.in_unit(unit, steps, hires_steps)
        assert {name: getattr(after, name) for name in FIELDS} == expected


if __name__ == "__main__":
    TABLE.write_text(written(cases()), "utf-8")
