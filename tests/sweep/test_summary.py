"""Shares, means and intervals of a table written by hand, and what is chosen."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap

from lazyneg.sweep.measuring import Looking
from lazyneg.sweep.plan import Grid, Plan
from lazyneg.sweep.summary import Line, Summary, mean, saving, share, summarize

SEEDS = list(range(30))
LOOKING = Looking(objects={"glasses": ["glasses"]})


def section(
    has: Mapping[str, Sequence[int]],
    changes: Mapping[str, float] | None = None,
    critical_steps: Sequence[int] = (0, 3, 6),
    stop_steps: Sequence[int] = (0,),
    looking: Looking = LOOKING,
    twice: Mapping[str, Sequence[int]] | None = None,
    unit: str = "steps",
    prompt: str = "girl",
    areas: Sequence[int] = (100,),
) -> Summary:
    """The summary of a sweep in which given seeds have the object under each setting.

    The seeds in ``twice`` change twice as much as the others under that setting.
    """
    grid = Grid([prompt], ["glasses"], SEEDS, critical_steps, stop_steps, unit, {}, 8, areas)
    plan = Plan(grid, 20, {})
    table = pd.DataFrame(
        {
            "prompt": prompt,
            "negative": "glasses" if row.settings else "",
            "setting": row.label,
            "seed": seed,
            "mse": (changes or {}).get(row.label, 0.25)
            * (2 if seed in (twice or {}).get(row.label, ()) else 1),
            "ssim": 1 - (changes or {}).get(row.label, 0.25),
            "mse_outside": 0.125,
            "ssim_outside": 0.5,
            "has glasses": 0.9 if seed in has.get(row.label, ()) else 0.1,
        }
        for row, seed in itertools.product(plan.rows(prompt, "glasses"), SEEDS)
    )
    (summary,) = summarize(plan, table, looking)
    return summary


def line(summary: Summary, label: str) -> Line:
    return next(line for line in summary.lines if line.label == label)


def test_removal_and_induction_have_their_own_seeds() -> None:
    has = {"no negative": range(20), "from 0": [0, 25], "from 3": range(5), "from 6": range(20)}
    summary = section(has)
    assert (summary.present, summary.seeds) == (20, 30)
    found = {
        line.label: (line.removal and line.removal.value, line.induction and line.induction.value)
        for line in summary.lines
    }
    assert found == {"from 0": (0.95, 0.1), "from 3": (0.75, 0), "from 6": (0, 0)}
    removal, induction = line(summary, "from 0").removal, line(summary, "from 0").induction
    assert removal
    assert induction
    assert (removal.seeds, induction.seeds) == (20, 10)


def test_without_seeds_there_is_no_share() -> None:
    summary = section({"no negative": SEEDS})
    assert line(summary, "from 0").induction is None
    assert line(summary, "from 0").removal


def test_change_is_that_outside_where_a_region_is_known() -> None:
    has = {"no negative": range(20)}
    assert line(section(has), "from 0").change.value == 0.25
    looking = Looking(objects=LOOKING.objects, regions={"glasses": [(0, 0, 0.5, 0.5)]})
    outside = section(has, looking=looking)
    assert outside.outside
    assert line(outside, "from 0").change.value == 0.125
    assert line(outside, "from 0").similarity.value == 0.5


def test_change_is_also_told_apart_by_who_had_the_object() -> None:
    found = line(section({"no negative": range(20)}, twice={"from 0": range(20, 30)}), "from 0")
    assert found.change.value == pytest.approx(0.25 * 4 / 3)
    assert found.change_present
    assert found.change_absent
    assert (found.change_present.value, found.change_present.seeds) == (0.25, 20)
    assert (found.change_absent.value, found.change_absent.seeds) == (0.5, 10)
    all_have = line(section({"no negative": SEEDS}), "from 0")
    assert all_have.change_absent is None
    nobody_knows = line(section({}, looking=Looking()), "from 0")
    assert (nobody_knows.change_present, nobody_knows.change_absent) == (None, None)


def test_a_saving_pairs_the_seeds() -> None:
    against = np.random.default_rng(1).gamma(1, 1, 40)
    half = saving(against / 2, against)
    assert half
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
    values = against * np.random.default_rng(2).uniform(0, 1, 40)
    estimate = saving(values, against)
    theirs = bootstrap(
        (values, against),
        lambda one, other, axis: 1 - one.mean(axis=axis) / other.mean(axis=axis),
        method="percentile",
        paired=True,
        rng=2,
    ).confidence_interval
    assert estimate
    assert estimate.value == 1 - values.mean() / against.mean()
    assert estimate.low == pytest.approx(theirs.low, abs=0.02)
    assert estimate.high == pytest.approx(theirs.high, abs=0.02)
    assert saving(values, 0 * values) is None


def test_the_interval_of_a_mean_is_the_bootstrap_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 40)
    estimate = mean(values)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert estimate.value == values.mean()
    assert estimate.low == pytest.approx(theirs.low, abs=0.05)
    assert estimate.high == pytest.approx(theirs.high, abs=0.05)
    assert mean(values) == estimate


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        estimate = mean(random.random(40) < 0.7)
        held += estimate.low <= 0.7 <= estimate.high
    assert 0.9 <= held / 200 <= 0.98


def test_seeds_that_agree_are_not_certain() -> None:
    estimate = share([True] * 20)
    assert estimate
    assert estimate.value == 1
    assert estimate.high == pytest.approx(1)
    # Wilson's formula with nothing to the other side.
    assert estimate.low == pytest.approx(20 / (20 + 1.959964**2))
    nothing = share([False] * 20)
    assert nothing
    assert nothing.low == pytest.approx(0)
    assert nothing.high == pytest.approx(1 - estimate.low)
    assert share([]) is None


def test_a_few_do_not_look_like_fewer_than_none() -> None:
    ends = [
        (estimate.low, estimate.high)
        for few in range(39)
        if (estimate := share([index < few for index in range(38)]))
    ]
    assert len(ends) == 39
    assert ends == sorted(ends)
    assert [high for _, high in ends] == sorted(high for _, high in ends)


HAS = {"no negative": range(20)}


def test_chooses_the_last_step_before_removal_falls() -> None:
    changes = {"from 0": 0.4, "from 3": 0.1, "from 6": 0.05}
    # 20, 18 and 17 of 20 removed.
    summary = section({**HAS, "from 3": range(2), "from 6": range(3)}, changes)
    assert summary.choice is line(summary, "from 3")
    assert summary.verdict == (
        "critical step 3: it removes 90%, against 100% from step 0, and changes the picture "
        "75% less (75% to 75%); critical step 6 falls below 90% of that"
    )


def test_chooses_the_area_that_changes_least() -> None:
    changes = {"from 0": 0.4, "from 3": 0.2, "from 0, area 20 %": 0.1, "from 0, area 5 %": 0.01}
    has = {
        **HAS,
        "from 3": range(2),
        "from 6": range(20),
        # 19 and 17 of 20 removed.
        "from 0, area 20 %": range(1),
        "from 3, area 20 %": range(20),
        "from 6, area 20 %": range(20),
        "from 0, area 5 %": range(3),
    }
    summary = section(has, changes, areas=(100, 20, 5))
    assert summary.choice is line(summary, "from 0, area 20 %")
    assert summary.verdict == (
        "critical step 0, area 20 %: it removes 95%, against 100% from step 0, and changes the "
        "picture 75% less (75% to 75%); critical step 3, area 20 % falls below 90% of that"
    )
    changes["from 0, area 20 %"] = 0.3
    assert section(has, changes, areas=(100, 20, 5)).choice is not None
    assert section(has, changes, areas=(100, 20, 5)).verdict.startswith("critical step 3: ")


def test_exactly_enough_is_enough() -> None:
    # In floating point, 18 / 25 is less than 0.9 * (20 / 25).
    has = {"no negative": range(25), "from 0": range(5), "from 3": range(7), "from 6": range(25)}
    summary = section(has)
    assert summary.choice is line(summary, "from 3")


def test_says_the_unit() -> None:
    has = {"no negative": range(20), "from 20 %": range(2), "from 50 %": range(10)}
    summary = section(has, critical_steps=(0, 20, 50), unit="percent")
    assert summary.verdict.startswith("critical step 20 %: ")
    assert summary.verdict.endswith("critical step 50 % falls below 90% of that")


def test_says_when_a_delay_changes_more() -> None:
    changes = {"from 0": 0.2, "from 3": 0.3}
    summary = section({**HAS, "from 6": range(20)}, changes)
    assert "changes the picture 50% more (50% to 50%)" in summary.verdict


def test_says_when_a_saving_may_be_none() -> None:
    has = {**HAS, "from 6": range(20)}
    less = section(has, {"from 0": 0.2, "from 3": 0.15}, twice={"from 3": range(8)})
    assert re.search(r"5% less \(-\d+% to \d+%, so perhaps no less\)", less.verdict)
    more = section(has, {"from 0": 0.15, "from 3": 0.2}, twice={"from 0": range(8)})
    assert re.search(r"5% more \(-\d+% to \d+%, so perhaps no more\)", more.verdict)


def test_does_not_choose_past_a_fall() -> None:
    summary = section({**HAS, "from 3": range(5), "from 6": ()})
    assert summary.choice is line(summary, "from 0")


def test_says_when_nothing_later_was_tried() -> None:
    summary = section(HAS)
    assert summary.choice is line(summary, "from 6")
    assert summary.why.endswith("no later one was tried")


def test_does_not_choose_another_name_of_the_same_steps() -> None:
    # One of 20 steps is 5 percent.
    summary = section(HAS, critical_steps=(0, 3, 5, 9), unit="percent")
    again = [line.label for line in summary.lines if line.again]
    assert again == ["from 3 %", "from 9 %"]
    assert summary.choice is line(summary, "from 5 %")


def test_does_not_choose_what_stops() -> None:
    summary = section({**HAS, "from 3": SEEDS, "from 6": SEEDS}, stop_steps=(0, 10))
    assert summary.choice is line(summary, "from 0")


@pytest.mark.parametrize(
    ("summary", "why"),
    [
        (section({}), "0 of 30 seeds have the object"),
        (section({"no negative": range(9)}), "without a negative prompt 9 of 30"),
        (section({**HAS, "from 0": range(16)}), "removes the object from 4 of 20 seeds"),
        (
            section({**HAS, "from 0": range(16)}, prompt="girl wearing glasses"),
            "removes the object, which the prompt asks for, from 4 of 20 seeds",
        ),
        (section(HAS, critical_steps=(3, 6)), "critical step 0"),
        (section(HAS, looking=Looking()), "no detector knows an object"),
    ],
)
def test_says_why_it_does_not_choose(summary: Summary, why: str) -> None:
    assert summary.choice is None
    assert why in summary.verdict
    assert summary.verdict.startswith("no choice: ")


def test_the_front_has_what_nothing_beats() -> None:
    summary = section(
        {
            **HAS,
            "from 0": (),
            "from 3": range(2),
            "from 6": range(20),
            "from 0 until 5": range(10),
            "from 3 until 5": range(2),
        },
        {"from 0": 0.4, "from 3": 0.1, "from 6": 0, "from 0 until 5": 0.3, "from 3 until 5": 0.2},
        stop_steps=(0, 5),
    )
    assert [line.label for line in summary.front] == ["from 0", "from 3", "from 6"]
