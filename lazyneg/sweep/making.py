"""Making the pictures that are not there yet."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from lazyneg.painting import pictures
from lazyneg.painting.painter import Painter
from lazyneg.painting.ranks import Ranks
from lazyneg.sweep import files
from lazyneg.sweep.plan import Batch, Plan


def missing(plan: Plan, folder: Path) -> list[list[str]]:
    """For each batch of a plan the names of its pictures that are not there, or broken."""
    return [
        [
            name
            for seed in batch.seeds
            if not files.is_whole(folder / (name := plan.name(batch.painting, seed)))
        ]
        for batch in plan.batches
    ]


def make(plan: Plan, painter: Painter, folder: Path, ranks: Ranks) -> None:
    """Makes what is missing, each process its share.

    A batch of which a part is missing is painted as a whole, but only the missing files are
    written: the others keep their bytes, and the new ones get those that they always had. What
    batches have in common is computed once, so each process has the settings of its own seeds.

    Args:
        plan: What there is to be.
        painter: Paints it.
        folder: Where the pictures are.
        ranks: The processes that share the work.

    Raises:
        ModelError: If the pipeline cannot paint it.
    """
    # Decided by one process, as the others' first pictures may come before the last looks.
    absent = ranks.agree(missing(plan, folder) if ranks.rank == 0 else [])
    todo = {batch: names for batch, names in zip(plan.batches, absent, strict=True) if names}
    wanted = {name for names in todo.values() for name in names}
    if ranks.rank == 0:
        for name in wanted:
            (folder / name).unlink(missing_ok=True)
    ranks.agree(None)
    painter.pipe.set_progress_bar_config(disable=True)
    total = len(plan.paintings) * len(plan.grid.seeds)
    finished = total - len(wanted)
    with tqdm(
        desc="painting",
        total=total,
        initial=finished,
        unit=" pictures",
        disable=ranks.rank > 0,
    ) as progress:
        for strand in ranks.share(plan.strands(todo)):
            with painter.sharing():
                for batch in strand.batches:
                    _make_batch(plan, painter, folder, batch, todo[batch])
                    if ranks.rank == 0:
                        # The other processes' pictures count too.
                        made = finished + len(wanted.intersection(os.listdir(folder)))
                        progress.update(made - progress.n)
        ranks.gather(())
        progress.update(total - progress.n)


def _make_batch(
    plan: Plan, painter: Painter, folder: Path, batch: Batch, names: Sequence[str]
) -> None:
    job = plan.job(batch.painting)
    painted = painter.paint_batch(job, batch.seeds, batch.painting.settings)
    for seed, (picture, text) in zip(batch.seeds, painted, strict=True):
        name = plan.name(batch.painting, seed)
        if name in names:
            png = io.BytesIO()
            pictures.save(picture, png, str(text))
            files.write(folder / name, png.getvalue())
