"""The WebUI's samplers and schedule types: what they are called, and their noise levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[Any]
"""Noise levels (sigmas), those of the model's training rising, those of a run falling."""


@dataclass(frozen=True)
class Sampler:
    """One of the WebUI's samplers, as a scheduler of diffusers.

    Attributes:
        scheduler: Name of its class.
        options: What tells it from other samplers with the same class.
        automatic: The schedule type that the WebUI's "Automatic" is, ``None`` if the sampler has
            its own timesteps and no schedule type.
        cut: Whether the WebUI makes a schedule one longer, and leaves out its last noise level
            but the closing zero.
        evaluations: Iterations of the pipeline's loop that make one step.
    """

    scheduler: str
    options: Mapping[str, Any] = field(default_factory=dict)
    automatic: str | None = "Uniform"
    cut: bool = False
    evaluations: int = 1


_2M = {"solver_order": 2, "solver_type": "midpoint"}

SAMPLERS = {
    "DPM++ 2M": Sampler(
        "DPMSolverMultistepScheduler", {**_2M, "algorithm_type": "dpmsolver++"}, "Karras"
    ),
    "DPM++ 2M SDE": Sampler(
        "DPMSolverMultistepScheduler", {**_2M, "algorithm_type": "sde-dpmsolver++"}, "Exponential"
    ),
    "DPM++ 2M SDE Heun": Sampler(
        "DPMSolverMultistepScheduler",
        {**_2M, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        "Exponential",
    ),
    "DPM++ SDE": Sampler("DPMSolverSDEScheduler", automatic="Karras", evaluations=2),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler"),
    "Euler": Sampler("EulerDiscreteScheduler"),
    "LMS": Sampler("LMSDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler", evaluations=2),
    "DPM2": Sampler("KDPM2DiscreteScheduler", automatic="Karras", cut=True, evaluations=2),
    "DPM2 a": Sampler(
        "KDPM2AncestralDiscreteScheduler", automatic="Karras", cut=True, evaluations=2
    ),
    "LCM": Sampler("LCMScheduler", automatic=None),
    "DDIM": Sampler("DDIMScheduler", automatic=None),
    "PLMS": Sampler("PNDMScheduler", {"skip_prk_steps": True}, automatic=None),
    "UniPC": Sampler("UniPCMultistepScheduler", automatic=None),
}


def _uniform(count: int, training: Levels) -> Levels:
    return _at(np.linspace(len(training) - 1, 0, count), training)


def _sgm_uniform(count: int, training: Levels) -> Levels:
    return _at(np.linspace(len(training) - 1, 0, count + 1)[:-1], training)


def _karras(count: int, training: Levels) -> Levels:
    rho = 7.0
    levels: Levels = np.linspace(training[-1] ** (1 / rho), training[0] ** (1 / rho), count) ** rho
    return levels


def _exponential(count: int, training: Levels) -> Levels:
    return np.geomspace(training[-1], training[0], count)


def _simple(count: int, training: Levels) -> Levels:
    levels: Levels = training[::-1][(np.arange(count) * (len(training) / count)).astype(int)]
    return levels


def _ddim(count: int, training: Levels) -> Levels:
    # Where the steps do not divide the training's, there is one more than asked for.
    return training[1 :: max(len(training) // count, 1)][::-1]


def _beta(count: int, training: Levels) -> Levels:
    from scipy.stats import beta

    quantiles = beta.ppf(np.linspace(1, 0, count), 0.6, 0.6)
    levels: Levels = training[0] + quantiles * (training[-1] - training[0])
    return levels


def _align_your_steps(name: str) -> Callable[[int, Levels], Levels]:
    def levels(count: int, training: Levels) -> Levels:
        from diffusers.schedulers.scheduling_utils import AysSchedules

        # The WebUI ends the table at 0.029; diffusers has the closing zero alone.
        rising = np.log([0.029, *AysSchedules[name][-2::-1]])
        wanted = np.linspace(0, len(rising) - 1, count)
        falling: Levels = np.exp(np.interp(wanted, np.arange(len(rising)), rising))[::-1]
        return falling

    return levels


def _at(timesteps: Levels, training: Levels) -> Levels:
    """The noise levels at timesteps of the training, and between them."""
    levels: Levels = np.exp(np.interp(timesteps, np.arange(len(training)), np.log(training)))
    return levels


SCHEDULES: dict[str, Callable[[int, Levels], Levels]] = {
    "Uniform": _uniform,
    "Karras": _karras,
    "Exponential": _exponential,
    # With the WebUI's default exponent it is the same.
    "Polyexponential": _exponential,
    "SGM Uniform": _sgm_uniform,
    "Align Your Steps": _align_your_steps("StableDiffusionSigmas"),
    "Simple": _simple,
    "Normal": _uniform,
    "DDIM": _ddim,
    "Beta": _beta,
}
"""By the WebUI's names, the noise levels of a run of so many steps, without the closing zero."""

ALIGN_YOUR_STEPS_XL = _align_your_steps("StableDiffusionXLSigmas")
"""What Align Your Steps is for Stable Diffusion XL."""

_OTHER_NAMES = {
    "uniform": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "SGMUniform": "SGM Uniform",
    "align_your_steps": "Align Your Steps",
    "simple": "Simple",
    "normal": "Normal",
    "ddim": "DDIM",
    "beta": "Beta",
    "automatic": "Automatic",
}
"""What the WebUI's API, and samplers' names that end in a schedule type, call them besides."""


def split_name(name: str, schedule: str) -> tuple[str, str]:
    """A sampler's name without the schedule type that once was a part of it, and the type.

    Args:
        name: Such as ``DPM++ 2M`` or ``DPM++ 2M Karras``.
        schedule: The type named besides, empty if none is; the one in the name goes before it.
    """
    schedule = _OTHER_NAMES.get(schedule, schedule)
    if name not in SAMPLERS:
        # "SGM Uniform" before "Uniform".
        for ending in sorted((*SCHEDULES, *_OTHER_NAMES), key=len, reverse=True):
            if name.endswith(f" {ending}"):
                return name.removesuffix(f" {ending}"), _OTHER_NAMES.get(ending, ending)
    return name, schedule


def schedule_type(name: str, schedule: str) -> str | None:
    """The schedule type that a sampler is to use.

    Args:
        name: One of :data:`SAMPLERS`.
        schedule: As wanted; empty or ``Automatic`` is the sampler's default.

    Returns:
        One of :data:`SCHEDULES`, ``None`` for a sampler that has none.

    Raises:
        ValueError: If the sampler cannot be painted with it.
    """
    sampler = SAMPLERS[name]
    if schedule in ("", "Automatic"):
        return sampler.automatic
    if sampler.automatic is None:
        raise ValueError(
            f"the schedule type is {schedule!r}, but {name} has timesteps of its own; allowed: "
            "Automatic, or another sampler; --schedule and --sampler overrule it"
        )
    if schedule not in SCHEDULES:
        raise ValueError(
            f"the schedule type is {schedule!r}; allowed for {name}: Automatic, "
            f"{', '.join(SCHEDULES)}; --schedule overrules it"
        )
    return schedule
