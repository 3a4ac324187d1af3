"""Which step of the sampler a denoiser call serves: how hosts count, and where they do not."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from modules import processing, sd_samplers_common

from lazyneg.core.window import step_of_call, step_of_sigma
from lazyneg.webui.host.passes import is_hires_pass

if TYPE_CHECKING:
    import torch


SOLVER = "torchdiffeq"
"""A library to which samplers leave the integration. It chooses its steps itself, and loops over
the times that it was asked for."""


class StepCounter:
    """Tells the steps of one pass.

    Args:
        denoiser: The host's denoiser of the pass, before its first call is over.
    """

    def __init__(self, denoiser: Any) -> None:
        self.denoiser = denoiser
        given = inspect.signature(denoiser.sampler.func).parameters.keys()
        # The host hands the schedule to samplers that run through it.
        self._loops = "sigmas" in given
        # It knows ahead how often these call.
        self._counted = denoiser.total_steps != denoiser.steps or bool(
            given & {"n", "sigma_sched", "timesteps"}
        )
        self._before_loop = 0
        self._last_in_loop: int | None = None

    def step(self, sigma: torch.Tensor) -> int:
        """The step that the call under way serves.

        Args:
            sigma: Its noise levels, all the same. Only looked at where nothing else tells, as it
                may have to come from a GPU.
        """
        denoiser = self.denoiser
        if self._loops and (turn := loop_turn(denoiser)) is not None:
            if self._last_in_loop is None and denoiser.step > 0:
                # Some samplers make a first step ahead of their loop.
                self._before_loop = max(self._step_of(sigma) - turn, 0)
            self._last_in_loop = turn + self._before_loop
            return self._last_in_loop
        if self._last_in_loop is not None:
            # Others make a last step behind it.
            return self._last_in_loop + 1
        if self._counted:
            return step_of_call(denoiser.step, denoiser.total_steps, denoiser.steps)
        # The sampler chooses its own steps.
        return self._step_of(sigma)

    @property
    def forward(self) -> bool:
        """Whether no call to come serves an earlier step than the one under way. A sampler that
        chooses its own steps goes back over one that it rejects.
        """
        return self._counted or self._last_in_loop is not None

    def _step_of(self, sigma: torch.Tensor) -> int:
        return step_of_sigma(sigma[0].item(), self._sigmas)

    @functools.cached_property
    def _sigmas(self) -> list[float]:
        """The schedule that the host built for this pass: ``steps`` levels and a closing 0."""
        denoiser = self.denoiser
        p = denoiser.p
        if is_hires_pass(p):
            steps, _ = sd_samplers_common.setup_img2img_steps(p, p.hr_second_pass_steps or p.steps)
        elif isinstance(p, processing.StableDiffusionProcessingImg2Img):
            steps, _ = sd_samplers_common.setup_img2img_steps(p)
        else:
            steps = denoiser.steps
        sigmas: list[float] = denoiser.sampler.get_sigmas(p, steps).tolist()
        return sigmas[-(denoiser.steps + 1) :]


def loop_turn(denoiser: Any) -> int | None:
    """The turn of the sampler's loop over the schedule, which is running further up the stack.

    What the host hands over does not tell the second evaluation of a step from the first one of
    the next: noise level, position and the step last reported are the same. Nor is the function
    that the host calls always the one with the loop.

    Returns:
        The loop's own counter; ``None`` where no such loop is running.
    """
    for frame in _sampler_frames(denoiser):
        for counter, iterable in _loops_around(frame):
            variables = frame.f_locals
            turn = variables.get(counter)
            over = [variables.get(name) for name in iterable]
            if isinstance(turn, int) and (
                any(map(_is_list, over)) or _has_number_of_steps(over, variables, denoiser.steps)
            ):
                return turn
    return None


def _has_number_of_steps(over: list[Any], variables: Mapping[str, Any], steps: int) -> bool:
    """Whether one of ``over`` is a number of steps: those asked for, or those of a schedule."""
    lengths = {steps, *(len(it) - 1 for it in variables.values() if _is_list(it))}
    return any(isinstance(it, int) and it in lengths for it in over)


def _sampler_frames(denoiser: Any) -> Iterator[FrameType]:
    """The frames between the host's sampler object and its denoiser, outermost first."""
    frames: list[FrameType] = []
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "launch_sampling":
        frames.append(frame)
        frame = frame.f_back
    if frame is None:
        return
    for frame in reversed(frames):
        # Only now, as it makes a mapping of all.
        if frame.f_locals.get("self") is denoiser:
            return
        yield frame


def _is_list(value: Any) -> bool:
    """Whether a loop over ``value`` may be one over noise levels: not every schedule has one for
    each step that was asked for. What is denoised has more dimensions.
    """
    return getattr(value, "ndim", None) == 1


def _loops_around(frame: FrameType) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The counters of the `for` loops that a frame is in, with what they run over."""
    if frame.f_globals.get("__name__", "").split(".")[0] == SOLVER:
        return
    for first, last, counter, iterable in _loops(frame.f_code):
        if first <= frame.f_lineno <= last:
            yield counter, iterable


@functools.cache
def _loops(code: CodeType) -> tuple[tuple[int, int, str, tuple[str, ...]], ...]:
    """First and last line of each `for` loop's body, its counter, and the names it runs over."""
    if code.co_name.startswith("<"):
        # A comprehension or lambda, whose source may be found at another line.
        return ()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return ()
    return tuple(
        (
            loop.body[0].lineno + code.co_firstlineno - 1,
            (loop.body[-1].end_lineno or 0) + code.co_firstlineno - 1,
            next(node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)),
            tuple(node.id for node in ast.walk(loop.iter) if isinstance(node, ast.Name)),
        )
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For)
        and any(isinstance(node, ast.Name) for node in ast.walk(loop.target))
    )
