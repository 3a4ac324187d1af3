"""The files that tell what a sweep found."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from lazyneg.sweep import files
from lazyneg.sweep.measuring import Looking
from lazyneg.sweep.plan import Plan, file_name
from lazyneg.sweep.plots import FEWEST, plot
from lazyneg.sweep.sheets import COLUMNS, contact_sheet
from lazyneg.sweep.summary import CONFIDENCE, ENOUGH, ENOUGH_REMOVED, KEPT, Estimate, Summary


def write(
    plan: Plan, table: pd.DataFrame, summaries: Sequence[Summary], looking: Looking, folder: Path
) -> None:
    """Writes tables, contact sheets, plots, ``report.md`` and ``index.html``.

    Args:
        plan: What there is.
        table: What was measured; see :func:`lazyneg.sweep.measuring.measure`.
        summaries: What it says.
        looking: What was looked for.
        folder: Where to; the pictures are in ``pictures`` there.
    """
    sections: list[dict[str, Any]] = []
    for summary in summaries:
        pair = (summary.prompt, summary.negative, summary.words or "")
        name = file_name("\n".join(pair), *pair)
        sheet = f"sheets/{name}.png"
        files.write(folder / sheet, _sheet(plan, table, summary, looking, folder / "pictures"))
        drawing = f"plots/{name}.svg" if summary.present >= FEWEST else None
        if drawing:
            files.write(folder / drawing, plot(summary))
        sections.append({"summary": summary, "sheet": sheet, "plot": drawing})
    _write_csv(folder / "pictures.csv", table)
    _write_csv(folder / "summary.csv", _summary_table(summaries))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lazyneg.sweep"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["share"] = share_text
    environment.filters["number"] = number_text
    environment.filters["markdown"] = markdown_text
    for name in ("report.md", "index.html"):
        text = environment.get_template(name).render(
            plan=plan,
            looking=looking,
            sections=sections,
            shown=min(COLUMNS, len(plan.grid.seeds)),
            made=_made(plan),
            confidence=CONFIDENCE,
            enough=ENOUGH,
            enough_removed=ENOUGH_REMOVED,
            kept=KEPT,
        )
        files.write(folder / name, text.encode())


def _made(plan: Plan) -> str:
    """What all pictures have in common, in words."""
    pictures = len(plan.paintings) * len(plan.grid.seeds)
    common = {**plan.grid.parameters, **plan.maker, "Batch size": plan.grid.batch_size}
    listed = ", ".join(f"{name} {value}" for name, value in common.items())
    skipped = plan.grid.skipped
    left_out = f", {skipped} settings left out as they stop before they begin" if skipped else ""
    seeds = len(plan.grid.seeds)
    each = "one seed" if seeds == 1 else f"{seeds} seeds"
    return f"{pictures} pictures, {each} each{left_out}. {listed}"


def _sheet(
    plan: Plan, table: pd.DataFrame, summary: Summary, looking: Looking, pictures: Path
) -> bytes:
    seeds = list(plan.grid.seeds)[:COLUMNS]
    rows = []
    for row in plan.rows(summary.prompt, summary.negative):
        negative = summary.negative if row.settings else ""
        lines = table[
            (table.prompt == summary.prompt)
            & (table.negative == negative)
            & (table.setting == row.label)
        ][: len(seeds)]
        found = [False] * len(seeds)
        if summary.words:
            found = list(lines[f"has {summary.words}"] >= looking.threshold)
        rows.append((row.label, [pictures / name for name in lines.picture], found))
    png = io.BytesIO()
    contact_sheet(rows, seeds).save(png, "png")
    return png.getvalue()


def _summary_table(summaries: Sequence[Summary]) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    # The columns are always the same.
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(Estimate))
    for summary in summaries:
        front = summary.front
        for line in summary.lines:
            estimates = {
                "removal": line.removal,
                "induction": line.induction,
                "ssim": line.similarity,
                "mse": line.change,
                "mse_present": line.change_present,
                "mse_absent": line.change_absent,
                "saving": line.saving,
            }
            lines.append(
                {
                    "prompt": summary.prompt,
                    "negative": summary.negative,
                    "object": summary.words,
                    "setting": line.label,
                    "outside": summary.outside,
                    **{
                        f"{name}_{part}": value
                        for name, estimate in estimates.items()
                        for part, value in (asdict(estimate) if estimate else nothing).items()
                    },
                    "on_front": line in front,
                    "chosen": line is summary.choice,
                }
            )
    return pd.DataFrame(lines)


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    files.write(path, text.encode())


def share_text(estimate: Estimate | None) -> str:
    """A share as the tables show it."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"


def number_text(estimate: Estimate | None) -> str:
    """A mean as the tables show it."""
    if estimate is None:
        return "-"
    if estimate.seeds == 1:
        return f"{estimate.value:.3g} (one seed)"
    return f"{estimate.value:.3g} ({estimate.low:.3g} to {estimate.high:.3g})"


def markdown_text(text: str) -> str:
    """A text that Markdown shows as it is, in one line: neither its marks nor HTML's."""
    marked = re.sub(r"([\\`*_\[\]|~$#!])", r"\\\1", " ".join(text.split()))
    return html.escape(marked, quote=False)
