"""When the negative prompt acts: the arithmetic of one sampling pass, on plain numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The steps of one pass in which the negative prompt acts: ``critical <= step < stop``.

    Args:
        critical: First step (counted from 0) that uses the negative prompt.
        stop: First step that uses the empty prompt again; ``None`` never stops.
        steps: Steps of the pass, at least 1.
    """

    critical: int
    stop: int | None
    steps: int

    def active(self, step: int) -> bool:
        """Whether the negative prompt acts at ``step``.

        Samplers may call the denoiser more often than announced. Such calls count as the last
        step, so that a critical step at or past ``steps`` never applies the negative prompt.
        """
        step = min(step, self.steps - 1)
        return self.critical <= step and (self.stop is None or step < self.stop)

    def stays_active(self, step: int) -> bool:
        """Whether the negative prompt acts at ``step`` and in all steps after it."""
        return self.active(step) and (self.stop is None or self.stop >= self.steps)

    @property
    def everywhere(self) -> bool:
        """Whether the negative prompt acts in every step: nothing is left to delay."""
        return self.critical == 0 and (self.stop is None or self.stop >= self.steps)


def spans(steps: Collection[int]) -> str:
    """Steps as texts tell them: ``0-11, 17``, or ``never`` if there are none."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][-1] + 1:
            runs[-1][1:] = [step]
        else:
            runs.append([step])
    return ", ".join("-".join(map(str, run)) for run in runs) or "never"


def step_of_call(call: int, calls: int, steps: int) -> int:
    """The sampler step that denoiser call ``call`` serves, where ``calls`` make ``steps`` steps.

    Both evaluations of a second-order step belong to that step.
    """
    return call * steps // calls


def step_of_sigma(sigma: float, sigmas: Sequence[float]) -> int:
    """The step that noise level ``sigma`` belongs to, on a falling schedule.

    For samplers that choose their own step size, where counting calls tells nothing.

    Args:
        sigma: Noise level of the denoiser call.
        sigmas: Noise levels at the start of each step, falling; a closing 0 may follow.
    """
    return max(sum(sigma <= level for level in sigmas) - 1, 0)
