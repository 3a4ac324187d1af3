"""Which pictures a sweep makes, and how they are called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lazyneg.core.settings import Settings, SettingsError
from lazyneg.sweep.plan import Grid, Painting, Plan, digest, file_name

GRID = Grid(
    prompts=["girl", "boy"],
    negatives=["glasses", "hat"],
    seeds=[0, 1, 2, 3, 4],
    critical_steps=[0, 2, 5, 10, 12],
    stop_steps=[0, 5, 10],
    unit="steps",
    parameters={"Steps": "10", "CFG scale": "7"},
    batch_size=2,
)
MAKER = {"Model hash": "0123456789"}
PLAN = Plan(GRID, 10, MAKER)
REFERENCE = Painting("girl", "", Settings())
PLAIN = Painting("girl", "hat", Settings())


def delayed(critical_step: int, stop_step: int = 0) -> Painting:
    settings = {"enabled": True, "critical_step": critical_step, "stop_step": stop_step}
    return Painting("girl", "hat", Settings.parse(settings))


def test_file_names() -> None:
    assert file_name("girl", "A girl!", "", "in a hat") == f"a-girl_in-a-hat-{digest('girl')}"
    # What has no letters for a file name is told apart by its digest.
    assert file_name("猫", "猫") == digest("猫")
    assert file_name("猫", "猫") != file_name("犬", "犬")


def test_rows_of_a_section() -> None:
    rows = {row.label: row.painting for row in PLAN.rows("girl", "hat")}
    assert rows == {
        "no negative": REFERENCE,
        "from 0": PLAIN,
        "from 2": delayed(2),
        "from 5": delayed(5),
        # The negative prompt would act in no step.
        "from 10": REFERENCE,
        "from 12": REFERENCE,
        "from 0 until 5": delayed(0, 5),
        "from 2 until 5": delayed(2, 5),
        # There is no step 10.
        "from 0 until 10": PLAIN,
        "from 2 until 10": delayed(2),
        "from 5 until 10": delayed(5),
    }


def test_skips_what_would_stop_before_it_begins() -> None:
    assert GRID.skipped == 5
    assert len(GRID.settings) == 10


def test_a_stop_past_the_end_is_no_stop_whatever_else_is_asked_for() -> None:
    alone = Plan(replace(GRID, critical_steps=[2], stop_steps=[30]), 10, MAKER)
    assert alone.rows("girl", "hat")[1].painting == delayed(2)


def test_paints_nothing_twice() -> None:
    # For each prompt the reference; for each pair from 0, 2, 5, 0 until 5, 2 until 5.
    assert len(PLAN.paintings) == 2 * (1 + 2 * 5)
    assert len(set(PLAN.paintings)) == len(PLAN.paintings)


def test_percents_that_mean_the_same_steps_share_a_painting() -> None:
    grid = replace(GRID, unit="percent", critical_steps=[0, 1, 20, 25, 100], stop_steps=[0, 50])
    rows = {row.label: row.painting for row in Plan(grid, 10, MAKER).rows("girl", "hat")}
    assert rows["from 1 %"] == PLAIN
    assert rows["from 25 %"] is rows["from 20 %"]
    assert rows["from 25 %"].settings.infotext() == {"LazyNeg critical step": "20%"}
    assert rows["from 100 %"] == REFERENCE
    assert rows["from 20 % until 50 %"].settings.window(10).stop == 5


def test_areas_and_being_adaptive() -> None:
    grid = replace(
        GRID, critical_steps=[0, 12], stop_steps=[0], areas=[100, 10], adaptive=[False, True]
    )
    rows = {row.label: row.painting for row in Plan(grid, 10, MAKER).rows("girl", "hat")}
    assert list(rows) == [
        "no negative",
        "from 0",
        "from 12",
        "from 0, area 10 %",
        "from 12, area 10 %",
        "from 0, adaptive",
        "from 12, adaptive",
        "from 0, area 10 %, adaptive",
        "from 12, area 10 %, adaptive",
    ]
    assert rows["from 0"] == PLAIN
    assert {rows[label] for label in rows if label.startswith("from 12")} == {REFERENCE}
    assert rows["from 0, area 10 %, adaptive"].settings.infotext() == {
        "LazyNeg critical step": "0",
        "LazyNeg area": "10%",
        "LazyNeg adaptive": "True",
    }
    assert len(set(rows.values())) == 5
    assert grid.skipped == 0
    assert replace(grid, stop_steps=[0, 5]).skipped == 4


def test_counts_the_iterations_of_the_loop() -> None:
    # A second-order sampler has more than it has steps.
    rows = {row.label: row.painting for row in Plan(GRID, 19, MAKER).rows("girl", "hat")}
    assert rows["from 12"] == delayed(12)


def test_batches_have_a_part_of_the_seeds_each() -> None:
    batches = [batch.seeds for batch in PLAN.batches if batch.painting == PLAIN]
    assert batches == [(0, 1), (2, 3), (4,)]
    assert len(PLAN.batches) == 3 * len(PLAN.paintings)


def test_names_tell_pictures_apart_and_nothing_else() -> None:
    name = PLAN.name(delayed(2), 3)
    assert name.startswith("girl_hat_from-2_seed-3-")
    names = {PLAN.name(batch.painting, seed) for batch in PLAN.batches for seed in batch.seeds}
    assert len(names) == len(PLAN.paintings) * 5
    # What else is asked for does not matter.
    other = replace(GRID, prompts=["cat", "girl"], seeds=[3], critical_steps=[2], stop_steps=[0])
    assert Plan(other, 10, MAKER).name(delayed(2), 3) == name
    for changed in (
        Plan(replace(GRID, parameters={**GRID.parameters, "Steps": "11"}), 10, MAKER),
        Plan(replace(GRID, batch_size=3), 10, MAKER),
        Plan(GRID, 10, {"Model hash": "9876543210"}),
    ):
        assert changed.name(delayed(2), 3) != name


def test_names_of_any_text_are_names_of_files() -> None:
    painting = Painting("a/b\\c: 女の子 " + "x" * 300, "..", Settings())
    name = PLAN.name(painting, 1)
    assert name.isascii()
    assert len(name) < 150
    assert not set(name) & set('/\\:*?"<>| ')


def test_refuses_what_the_settings_refuse() -> None:
    with pytest.raises(SettingsError, match="101 percent"):
        _ = replace(GRID, unit="percent", critical_steps=[101]).settings
