"""A sweep from the first picture to the report."""

from __future__ import annotations

from pathlib import Path

from lazyneg.painting.painter import Painter
from lazyneg.painting.ranks import Ranks
from lazyneg.sweep import making, measuring, report
from lazyneg.sweep.measuring import Looking
from lazyneg.sweep.plan import Plan
from lazyneg.sweep.summary import Summary, summarize


def sweep(
    plan: Plan, painter: Painter, looking: Looking, folder: Path, ranks: Ranks | None = None
) -> list[Summary]:
    """Makes the pictures of a plan that are not there yet, measures all, and reports.

    Args:
        plan: What there is to be.
        painter: Paints it.
        looking: What to look for in the pictures.
        folder: For ``pictures``, ``sheets``, ``plots``, ``pictures.csv``, ``summary.csv``,
            ``report.md`` and ``index.html``.
        ranks: The processes that share the work; only the first one writes the report.

    Returns:
        The sections of the report.

    Raises:
        ModelError: If the pipeline cannot paint it.
    """
    ranks = ranks or Ranks()
    pictures = folder / "pictures"
    making.make(plan, painter, pictures, ranks)
    table = measuring.measure(plan, pictures, looking, ranks)
    summaries = summarize(plan, table, looking)
    if ranks.rank == 0:
        report.write(plan, table, summaries, looking, folder)
    return summaries
