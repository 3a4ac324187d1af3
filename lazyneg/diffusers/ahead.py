"""What comes of a denoiser call, asked of rehearsals that go on from it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyneg.diffusers.batch import list_sizes, sample_path
from lazyneg.diffusers.both import Both, tracked
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path
from lazyneg.diffusers.rehearsal import Made, Rehearsal


@dataclass
class Ahead:
    """Tells what comes of a denoiser call of the first step.

    Attributes:
        module: The denoiser.
        blank: Rehearsal of the pipeline's call with a blank negative prompt.
        more: Rehearsals of ways to ask for one picture more, and of how many there were.
        made: The denoiser calls before this one.
    """

    module: torch.nn.Module
    blank: Rehearsal
    more: Iterable[tuple[int, Rehearsal]]
    made: Sequence[Made]

    def feeds(self, output: Any) -> bool:
        """Whether an output will be in what another model is called with."""
        try:
            call = self.blank.next([*self.made, _tracked(Made(self.module, output))])
        except Exception as error:
            raise DelayError(
                f"it cannot be told without calling {type(self.module).__name__} what becomes of "
                f"its output ({error!r}): area and adaptive cannot choose in it"
            ) from error
        return call is not None and any(isinstance(leaf, Both) for leaf in call.given.values())

    def rows(self, givens: Mapping[Path, Any]) -> Mapping[Path, bool]:
        """Which arguments have a row for each of the batch.

        They have more for more pictures. Those of which it cannot be told are left out.
        """
        for pictures, rehearsal in self.more:
            # Not all that the user gave can be had for more pictures.
            with contextlib.suppress(Exception):
                call = rehearsal.next([*map(_tracked, self.made)])
                if call and call.module is self.module:
                    found = _grown(givens, call.given, pictures)
                    path = sample_path(self.module, givens)
                    samples = [where for where in givens if where[:2] == path]
                    if samples and all(map(found.get, samples)):
                        return found
        return {}


def _grown(
    givens: Mapping[Path, Any], others: Mapping[Path, Any], pictures: int
) -> dict[Path, bool]:
    """Which arguments have more rows in the call for one picture more, and which as many.

    Others are left out, and so are those that have as many but come of what a denoiser or the user
    gave: that is of so many pictures as there are.
    """
    found: dict[Path, bool] = {}
    before, after = list_sizes(givens), list_sizes(others)
    for path, leaf in givens.items():
        other = others.get(path)
        one, two = before[path[:-1]], after[path[:-1]]
        if one == two and isinstance(leaf, Tensor) and isinstance(other, Tensor):
            one, two = len(leaf) if leaf.ndim else 0, len(other) if other.ndim else 0
        if one == two and not isinstance(other, Both):
            found[path] = False
        elif one * (pictures + 1) == two * pictures:
            found[path] = True
    return found


def _tracked(made: Made) -> Made:
    """A call that gives what can be told from all else."""
    copied = copy.copy(made)
    copied.output = tracked(made.output)
    return copied
