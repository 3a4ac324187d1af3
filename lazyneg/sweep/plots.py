"""The plot of a section: removal against preservation, and both against the critical step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lazyneg.painting.pictures import choosing
from lazyneg.sweep.plan import digest
from lazyneg.sweep.summary import Estimate, Line, Summary

COLORS = ("#1b6ca8", "#7a5195", "#2a9d8f", "#bc5090", "#6b705c")
_INDUCED = "#d95f02"
FEWEST = 5
"""Of fewer seeds, an interval spans the drawing and a share tells nothing."""


def plot(summary: Summary) -> bytes:
    """Draws the plot as SVG, the same bytes for the same numbers.

    Args:
        summary: A section with an object that at least :data:`FEWEST` seeds have without a
            negative prompt.
    """
    with in_style(digest(f"{summary.prompt}\n{summary.negative}\n{summary.words}")):
        figure = Figure(figsize=(12.5, 4.4), layout="constrained")
        front, curves = figure.subplots(1, 2)
        _draw_front(front, summary)
        _draw_curves(curves, summary)
        return svg(figure)


def in_style(salt: str) -> AbstractContextManager[None]:
    """How plots look. Of the salt are the names of what repeats in the drawing."""
    style: dict[str, Any] = {
        "svg.hashsalt": salt,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
    }
    return mpl.rc_context(style)


def svg(figure: Figure) -> bytes:
    """The same bytes for the same figure, in the style."""
    drawing = io.BytesIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
    return drawing.getvalue()


def _groups(summary: Summary) -> dict[str, list[Line]]:
    """The lines that differ in their critical step only, by what they have in common."""
    groups: dict[str, list[Line]] = {}
    for line in summary.lines:
        stop = line.settings.stop_step
        until = f"until {stop}{_unit(summary)}" if stop else ""
        name = ", ".join(filter(None, (until, choosing(line.settings))))
        groups.setdefault(name, []).append(line)
    return groups


def _unit(summary: Summary) -> str:
    return " %" if summary.lines[0].settings.unit == "percent" else ""


def _draw_front(axes: Any, summary: Summary) -> None:
    front = summary.front
    if len(front) > 1:
        axes.plot(
            [line.similarity.value for line in front],
            [line.removal.value for line in front if line.removal],
            color="#bbbbbb",
            zorder=1,
            label="Pareto front",
        )
    unit = _unit(summary)
    for color, (name, lines) in zip(cycle(COLORS), _groups(summary).items()):
        points = [(line, line.similarity, line.removal) for line in lines if line.removal]
        for _, x, y in points:
            axes.errorbar(
                x.value,
                y.value,
                xerr=_reach(x),
                yerr=_reach(y),
                color=color,
                elinewidth=0.8,
                alpha=0.35,
            )
        axes.plot(
            [x.value for _, x, _ in points],
            [y.value for _, _, y in points],
            "o",
            color=color,
            label=name or "never stops",
        )
        for line, x, y in points:
            axes.annotate(
                str(line.settings.critical_step),
                (x.value, y.value),
                xytext=(6, 5),
                textcoords="offset points",
                color=color,
                path_effects=[withStroke(linewidth=3, foreground="white")],
            )
    if summary.choice and summary.choice.removal:
        axes.plot(
            summary.choice.similarity.value, summary.choice.removal.value, "o",
            markersize=15, markerfacecolor="none", color="black", label="chosen",
        )  # fmt: skip
    place = "outside the object's region" if summary.outside else "whole picture"
    axes.set_xlabel(f"preservation: SSIM to no negative, {place}")
    axes.set_ylabel(f"removal of {summary.words}")
    axes.set_ylim(-0.05, 1.08)
    axes.set_title(
        f"Numbers are critical steps{' in percent' if unit else ''}", loc="left", fontsize=10
    )
    axes.legend(frameon=False)


def _draw_curves(axes: Any, summary: Summary) -> None:
    unit = _unit(summary)
    absent = summary.seeds - summary.present
    for color, (name, lines) in zip(cycle(COLORS), _groups(summary).items()):
        steps = [line.settings.critical_step for line in lines]
        removal = [line.removal for line in lines]
        what = f"removal, {name}" if name else "removal"
        _draw_curve(axes, steps, removal, f"{what}, of {summary.present}", "-", color)
        if not name:
            kept = [line.similarity for line in lines]
            induced = [line.induction for line in lines]
            _draw_curve(axes, steps, kept, "preservation", "--", color)
            if absent >= FEWEST:
                _draw_curve(axes, steps, induced, f"induction, of {absent}", ":", _INDUCED)
    axes.set_xlabel("critical step in percent" if unit else "critical step")
    axes.set_ylim(-0.05, 1.08)
    # Beside the curves, which can be anywhere.
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)


def _draw_curve(
    axes: Any,
    steps: Sequence[int],
    estimates: Sequence[Estimate | None],
    label: str,
    style: str,
    color: str,
) -> None:
    known = [(step, one) for step, one in zip(steps, estimates) if one]
    if known:
        at = [step for step, _ in known]
        axes.plot(at, [one.value for _, one in known], style, marker=".", color=color, label=label)
        axes.fill_between(
            at,
            [one.low for _, one in known],
            [one.high for _, one in known],
            color=color,
            alpha=0.12,
            linewidth=0,
        )


def _reach(estimate: Estimate) -> list[list[float]]:
    """An interval as matplotlib wants it: how far it reaches to both sides."""
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]
