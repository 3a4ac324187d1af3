"""What the measures of a sweep say: shares, means, their intervals, and which setting to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from lazyneg.core.settings import Settings
from lazyneg.painting.pictures import choosing
from lazyneg.sweep.detectors import known_in
from lazyneg.sweep.measuring import Looking
from lazyneg.sweep.plan import Plan

CONFIDENCE = 0.95
RESAMPLES = 5000
ENOUGH = 10
"""Seeds with the object below which nothing is chosen."""
ENOUGH_REMOVED = 5
"""Of them, seeds that critical step 0 must rid of it."""
KEPT = Fraction(9, 10)
"""Share of the removal at critical step 0 that the chosen critical step must reach."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with its 95 % interval.

    Attributes:
        value: The mean.
        low: Lower end of the interval.
        high: Upper end.
        seeds: How many seeds it is the mean of.
    """

    value: float
    low: float
    high: float
    seeds: int


def mean(values: Sequence[float] | NDArray[Any]) -> Estimate:
    """The mean of at least one value, and its percentile bootstrap interval over seeds."""
    sample = np.asarray(values, float)
    return _estimate(sample.mean(), sample[_picks(len(sample))].mean(axis=1), len(sample))


def saving(values: NDArray[Any], against: NDArray[Any]) -> Estimate | None:
    """How much smaller the mean of some values is than that of others of the same seeds.

    As a share of the others' mean, with an interval as in :func:`mean`; ``None`` where they are 0.
    """
    if not against.any():
        return None
    picks = _picks(len(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = 1 - values[picks].mean(axis=1) / against[picks].mean(axis=1)
    return _estimate(1 - values.mean() / against.mean(), drawn[np.isfinite(drawn)], len(values))


def _picks(seeds: int) -> NDArray[np.int64]:
    # The same draws every time: the same pictures give the same report.
    return np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))


def _estimate(value: float, drawn: NDArray[Any], seeds: int) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Estimate(float(value), float(low), float(high), seeds)


def share(flags: Sequence[bool] | NDArray[np.bool_]) -> Estimate | None:
    """The share of those that are true, and its Wilson interval; ``None`` of nothing.

    Resampling, as in :func:`mean`, would claim too much certainty near none and all.
    """
    if not len(flags):
        return None
    true = int(np.sum(flags))
    interval = binomtest(true, len(flags)).proportion_ci(CONFIDENCE, "wilson")
    return Estimate(true / len(flags), float(interval.low), float(interval.high), len(flags))


@dataclass(frozen=True)
class Line:
    """What a setting does to the pictures of a section.

    Attributes:
        label: The setting, in words.
        settings: The setting.
        removal: Of the seeds that have the object without a negative prompt, the share that has
            lost it.
        induction: Of those that do not have it, the share that has got it.
        similarity: SSIM to the picture without a negative prompt; outside the region of the
            object where that is known.
        change: Mean squared difference, in the same place.
        change_present: The same for the seeds that have the object without a negative prompt.
        change_absent: And for those that do not.
        saving: How much smaller the change is than from step 0.
        again: Whether an earlier line is of the same pictures, as it means the same steps.
    """

    label: str
    settings: Settings
    removal: Estimate | None
    induction: Estimate | None
    similarity: Estimate
    change: Estimate
    change_present: Estimate | None
    change_absent: Estimate | None
    saving: Estimate | None
    again: bool

    @property
    def begin(self) -> str:
        """The critical step and what else there is to say, in words."""
        return self.label.removeprefix("from ")


@dataclass(frozen=True)
class Summary:
    """A section of the report: a prompt, a negative prompt, and one object or none.

    Attributes:
        prompt: The prompt.
        negative: The negative prompt.
        words: The object that removal is about, if any is known.
        outside: Whether similarity and change are those outside the object's region.
        present: Seeds that have the object without a negative prompt.
        seeds: All seeds.
        at_once: Whether the prompt asks for the object that the negative prompt is against.
        lines: The settings.
        choice: The line that the rule chooses.
        why: Why, or why none is chosen.
    """

    prompt: str
    negative: str
    words: str | None
    outside: bool
    present: int
    seeds: int
    at_once: bool
    lines: tuple[Line, ...]
    choice: Line | None = None
    why: str = ""

    @property
    def title(self) -> str:
        words = f" ({self.words})" if self.words and self.words != self.negative else ""
        return " ".join(f"{self.prompt}, without {self.negative}{words}".split())

    @property
    def verdict(self) -> str:
        if self.choice is None:
            return f"no choice: {self.why}"
        return f"critical step {self.choice.begin}: {self.why}"

    @property
    def front(self) -> list[Line]:
        """The lines that no other one beats in both removal and similarity, by similarity."""
        points = [
            (line.similarity.value, line.removal.value, line) for line in self.lines if line.removal
        ]
        return [
            line
            for similarity, removal, line in sorted(points, key=lambda point: point[:2])
            if not any(
                other[:2] != (similarity, removal)
                and other[0] >= similarity
                and other[1] >= removal
                for other in points
            )
        ]


def summarize(plan: Plan, table: pd.DataFrame, looking: Looking) -> list[Summary]:
    """All sections of a report.

    Args:
        plan: What there is.
        table: What was measured; see :func:`lazyneg.sweep.measuring.measure`.
        looking: What was looked for.
    """
    return [
        _section(plan, table, looking, prompt, negative, words)
        for prompt, negative in plan.sections
        for words in tuple(looking.objects.get(negative, ())) or (None,)
    ]


def _section(
    plan: Plan,
    table: pd.DataFrame,
    looking: Looking,
    prompt: str,
    negative: str,
    words: str | None,
) -> Summary:
    of_prompt = table[table.prompt == prompt]
    reference = of_prompt[of_prompt.negative == ""]
    of_pair = of_prompt[of_prompt.negative == negative]
    suffix = "_outside" if looking.regions.get(negative) else ""
    present = _present(reference, looking, words)
    rows = plan.rows(prompt, negative)
    # The plain negative prompt, if it was asked for.
    starts = [row.label for row in rows if row.settings and not row.settings.delays()]
    plain = of_pair[of_pair.setting.isin(starts)][f"mse{suffix}"].to_numpy(float)
    lines = []
    seen = set()
    for row in rows:
        if row.settings is None:
            continue
        of_row = of_pair[of_pair.setting == row.label]
        has = _present(of_row, looking, words)
        change = of_row[f"mse{suffix}"].to_numpy(float)
        lines.append(
            Line(
                row.label,
                row.settings,
                share(~has[present]) if words else None,
                share(has[~present]) if words else None,
                mean(of_row[f"ssim{suffix}"]),
                mean(change),
                mean(change[present]) if present.any() else None,
                mean(change[~present]) if words and not present.all() else None,
                saving(change, plain),
                row.painting in seen,
            )
        )
        seen.add(row.painting)
    summary = Summary(
        prompt,
        negative,
        words,
        bool(suffix),
        int(present.sum()),
        len(present),
        bool(words and known_in(looking.reword(prompt), [words])),
        tuple(lines),
    )
    choice, why = _choose(summary)
    return replace(summary, choice=choice, why=why)


def _present(lines: pd.DataFrame, looking: Looking, words: str | None) -> NDArray[np.bool_]:
    if words is None:
        return np.zeros(len(lines), bool)
    flags: NDArray[np.bool_] = (lines[f"has {words}"] >= looking.threshold).to_numpy()
    return flags


def _choose(summary: Summary) -> tuple[Line | None, str]:
    """The setting to take, and why.

    The rule: of the critical steps without a stop, the largest one up to which removal never
    falls below the part :data:`KEPT` of what critical step 0 removes; and so for each area, and
    each choice of being adaptive. Of these the one that changes the pictures least.
    """
    if summary.words is None:
        return None, "no detector knows an object of the negative prompt, so removal is not known"
    if summary.present < ENOUGH:
        return None, (
            f"too few pictures to choose by: without a negative prompt {summary.present} of "
            f"{summary.seeds} seeds have the object; it takes {ENOUGH}"
        )
    groups: dict[str, list[tuple[int, Line]]] = {}
    for line in sorted(summary.lines, key=lambda line: line.settings.critical_step):
        if line.removal and not line.settings.stop_step and not line.again:
            removed = round(line.removal.value * line.removal.seeds)
            groups.setdefault(choosing(line.settings), []).append((removed, line))
    delays = groups.pop("", [])
    if not delays or delays[0][1].settings.critical_step:
        return None, "critical step 0, which the others are measured by, is not among the settings"
    most, plain = delays[0]
    if most < ENOUGH_REMOVED:
        asked = ", which the prompt asks for," if summary.at_once else ""
        return None, (
            f"too little to choose by: even from step 0 the negative prompt removes the object"
            f"{asked} from {most} of {summary.present} seeds; it takes {ENOUGH_REMOVED}"
        )
    (removed, choice), after = _latest(delays, most)
    for others in groups.values():
        if others[0][0] >= KEPT * most:
            other, after_other = _latest(others, most)
            if other[1].change.value < choice.change.value:
                (removed, choice), after = other, after_other
    if choice is plain:
        return choice, f"no delay; it removes {most / summary.present:.0%}, and {after}"
    return choice, (
        f"it removes {removed / summary.present:.0%}, against {most / summary.present:.0%} from "
        f"step 0, and {_saved(choice, summary)}; {after}"
    )


def _latest(delays: Sequence[tuple[int, Line]], most: int) -> tuple[tuple[int, Line], str]:
    """The last of some critical steps with what they remove, before one that falls short."""
    fallen = [index for index, (removed, _) in enumerate(delays) if removed < KEPT * most]
    if not fallen:
        return delays[-1], "no later one was tried"
    short = delays[fallen[0]][1]
    share = f"{float(KEPT):.0%} of that"
    return delays[fallen[0] - 1], f"critical step {short.begin} falls below {share}"


def _saved(choice: Line, summary: Summary) -> str:
    place = "the rest of the picture" if summary.outside else "the picture"
    if choice.saving is None:
        return f"changes {place} no more than that, which is not at all"
    word, sign = ("less", 1) if choice.saving.value >= 0 else ("more", -1)
    ends = sorted((sign * choice.saving.low, sign * choice.saving.high))
    # Without the sign of a zero.
    value, low, high = (round(one, 2) + 0.0 for one in (sign * choice.saving.value, *ends))
    unsure = f", so perhaps no {word}" if low <= 0 else ""
    return f"changes {place} {value:.0%} {word} ({low:.0%} to {high:.0%}{unsure})"
