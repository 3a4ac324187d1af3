"""What comes of a denoiser call, asked of rehearsals that go on from it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyneg.diffusers.batch import list_sizes, sample_path
from lazyneg.diffusers.both import Both
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path
from lazyneg.diffusers.rehearsal import DenoiserCall, Made, Rehearsal


@dataclass
class Ahead:
    """Tells what comes of a denoiser call of the first step.

    Attributes:
        module: The denoiser.
        blank: Rehearsal of the pipeline's call with a blank negative prompt.
        more: Makes the same for one picture more of each prompt, where that can be asked for.
        pictures: How many there are of each prompt.
        made: The denoiser calls before this one.
    """

    module: torch.nn.Module
    blank: Rehearsal
    more: Callable[[], Rehearsal] | None
    pictures: int
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
        call: DenoiserCall | None = None
        # Not all that the user gave can be had for more pictures.
        with contextlib.suppress(Exception):
            if self.more:
                call = self.more().next([*map(_tracked, self.made)])
        if call is None or call.module is not self.module:
            return {}
        found: dict[Path, bool] = {}
        before, after = list_sizes(givens), list_sizes(call.given)
        for path, leaf in givens.items():
            other = call.given.get(path)
            sizes = before[path[:-1]], after[path[:-1]]
            if sizes[0] == sizes[1] and isinstance(leaf, Tensor) and isinstance(other, Tensor):
                sizes = len(leaf) if leaf.ndim else 0, len(other) if other.ndim else 0
            if isinstance(other, Both):
                continue
            if sizes[0] == sizes[1]:
                found[path] = False
            elif sizes[0] * (self.pictures + 1) == sizes[1] * self.pictures:
                found[path] = True
        samples = [path for path in givens if path[:2] == sample_path(self.module, givens)]
        return found if samples and all(map(found.get, samples)) else {}


def _tracked(made: Made) -> Made:
    """A call that gives what can be told from all else."""
    tracked = copy.copy(made)
    tracked.output = Both.of(made.output, made.output, lambda: True)
    return tracked
