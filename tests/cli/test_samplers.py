"""Samplers and schedule types run through the noise levels that the WebUI gives them.

What those are is written here once more, from the papers' and k-diffusion's definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
from scipy.stats import beta

import lazyneg
from lazyneg.core.settings import Settings
from lazyneg.painting import models
from lazyneg.painting.infotext import Infotext
from lazyneg.painting.models import ModelError
from lazyneg.painting.painter import Painter
from lazyneg.painting.samplers import SAMPLERS, SCHEDULES

TRAINING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SIGMAS = [
    math.sqrt((1 - alpha) / alpha)
    for alpha in np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
]
LOW, HIGH = SIGMAS[0], SIGMAS[-1]


def at(timestep: float) -> float:
    """Between two timesteps, the logarithm runs straight."""
    low = min(int(timestep), 998)
    part = timestep - low
    return math.exp((1 - part) * math.log(SIGMAS[low]) + part * math.log(SIGMAS[low + 1]))


def fraction(step: int, steps: int) -> float:
    return step / (steps - 1) if steps > 1 else 0.0


def uniform(step: int, steps: int) -> float:
    return at(999 * (1 - fraction(step, steps)))


def exponential(step: int, steps: int) -> float:
    return HIGH * math.pow(LOW / HIGH, fraction(step, steps))


AYS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
AYS_XL = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029]

DEFINED: dict[str, Callable[[int, int], float]] = {
    "Uniform": uniform,
    "Normal": uniform,
    "Karras": lambda step, steps: (
        (HIGH ** (1 / 7) + fraction(step, steps) * (LOW ** (1 / 7) - HIGH ** (1 / 7))) ** 7
    ),
    "Exponential": exponential,
    "Polyexponential": exponential,
    "SGM Uniform": lambda step, steps: at(999 * (1 - step / steps)),
    "Simple": lambda step, steps: SIGMAS[-1 - int(step * (1000 / steps))],
    "Beta": lambda step, steps: (
        LOW + float(beta.ppf(1 - fraction(step, steps), 0.6, 0.6)) * (HIGH - LOW)
    ),
    "Align Your Steps": lambda step, steps: math.exp(
        np.interp(10 * fraction(step, steps), range(11), np.log(AYS))
    ),
}


def pipe_of(scheduler: Any, name: str = "StableDiffusionPipeline") -> Any:
    """All that choosing a sampler looks at."""
    return type(name, (SimpleNamespace,), {})(scheduler=scheduler)


def leading() -> Any:
    """A model's own scheduler with options that the WebUI knows nothing of."""
    options = {"timestep_spacing": "leading", "steps_offset": 1, "use_beta_sigmas": True}
    return diffusers.EulerDiscreteScheduler(**TRAINING, **options)


def levels(scheduler: Any, steps: int) -> Any:
    """The noise level at the begin of each step, and the last; some have each twice."""
    scheduler.set_timesteps(steps)
    return np.unique(scheduler.sigmas.double().numpy())[::-1]


SCHEDULED = [name for name, sampler in SAMPLERS.items() if sampler.automatic]
OWN = [name for name, sampler in SAMPLERS.items() if not sampler.automatic]


@pytest.mark.parametrize("steps", [2, 11, 33])
@pytest.mark.parametrize("schedule", DEFINED)
@pytest.mark.parametrize("name", SCHEDULED)
def test_noise_levels_are_those_of_the_webui(name: str, schedule: str, steps: int) -> None:
    pipe = pipe_of(leading())
    models.set_sampler(pipe, name, schedule, steps)
    # For these the WebUI makes one more, and leaves out the last.
    count = steps + 1 if name in ("DPM2", "DPM2 a") else steps
    expected = [DEFINED[schedule](step, count) for step in range(steps)]
    found = levels(pipe.scheduler, steps)
    assert found == pytest.approx([*expected, 0], rel=1e-4)
    assert pipe.scheduler.init_noise_sigma == pytest.approx(
        expected[0] if pipe.scheduler.init_noise_sigma > 1 else math.sin(math.atan(expected[0])),
        rel=1e-4,
    )
    assert float(pipe.scheduler.timesteps[0]) == pytest.approx(999, abs=0.1)
    assert models.sampler_of(pipe, steps).get("Schedule type", "Uniform") == schedule


def test_ddim_as_a_schedule_type() -> None:
    for steps, expected in ((20, 20), (30, 31)):
        pipe = pipe_of(leading())
        models.set_sampler(pipe, "Euler", "DDIM", steps)
        found = levels(pipe.scheduler, steps)
        every = 1000 // steps
        assert len(found) == expected + 1
        assert found == pytest.approx([*SIGMAS[1::every][::-1], 0], rel=1e-4)


def test_align_your_steps_is_another_for_xl() -> None:
    pipe = pipe_of(leading(), "StableDiffusionXLPipeline")
    models.set_sampler(pipe, "Euler", "Align Your Steps", 11)
    assert levels(pipe.scheduler, 11) == pytest.approx([*AYS_XL, 0], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("DPM++ 2M", "Karras"),
        ("DPM++ SDE", "Karras"),
        ("DPM++ 2M SDE", "Exponential"),
        ("DPM++ 2M SDE Heun", "Exponential"),
        ("DPM2", "Karras"),
        ("DPM2 a", "Karras"),
        ("Euler", None),
        ("Euler a", None),
        ("LMS", None),
        ("Heun", None),
        *((name, None) for name in OWN),
    ],
)
@pytest.mark.parametrize("automatic", ["", "Automatic"])
def test_the_webuis_default_is_painted_and_written(
    name: str, schedule: str | None, automatic: str
) -> None:
    pipe = pipe_of(leading())
    models.set_sampler(pipe, name, automatic, 20)
    written = {"Sampler": name, **({"Schedule type": schedule} if schedule else {})}
    assert models.sampler_of(pipe, 20) == written
    if name in SCHEDULED:
        again = pipe_of(leading())
        models.set_sampler(again, name, schedule or "Uniform", 20)
        assert np.array_equal(levels(again.scheduler, 20), levels(pipe.scheduler, 20))


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M", "Karras"),
        ("DPM++ 2M SDE Heun Karras", "DPM++ 2M SDE Heun", "Karras"),
        ("DPM++ 2M SDE Heun", "DPM++ 2M SDE Heun", "Exponential"),
        ("DPM++ SDE Exponential", "DPM++ SDE", "Exponential"),
        ("Euler a SGMUniform", "Euler a", "SGM Uniform"),
        ("Euler SGM Uniform", "Euler", "SGM Uniform"),
        ("Heun align_your_steps", "Heun", "Align Your Steps"),
    ],
)
def test_a_schedule_type_in_the_samplers_name(name: str, sampler: str, schedule: str) -> None:
    pipe = pipe_of(leading())
    models.set_sampler(pipe, name, "Automatic", 20)
    assert models.sampler_of(pipe, 20) == {"Sampler": sampler, "Schedule type": schedule}


@pytest.mark.parametrize(
    ("name", "schedule", "message"),
    [
        ("Guess", "", "the sampler is 'Guess'; allowed: DPM"),
        ("DPM adaptive", "Karras", "the sampler is 'DPM adaptive'; allowed: DPM"),
        ("Euler", "KL Optimal", "schedule type is 'KL Optimal'; allowed for Euler: Automatic, Uni"),
        ("Euler a", "Turbo", "'Turbo'; allowed for Euler a: .*Beta; --schedule overrules it"),
        *(
            (name, "Karras", f"'Karras', but {name} has timesteps of its own; allowed: Automatic")
            for name in OWN
        ),
    ],
)
def test_what_cannot_be_painted_is_named(name: str, schedule: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        models.set_sampler(pipe_of(leading()), name, schedule, 20)


def test_models_of_another_kind_keep_their_scheduler() -> None:
    pipe = pipe_of(diffusers.FlowMatchEulerDiscreteScheduler())
    models.set_sampler(pipe, "FlowMatchEulerDiscreteScheduler", "", 20)
    models.set_sampler(pipe, "", "Automatic", 20)
    assert models.sampler_of(pipe, 20) == {"Sampler": "FlowMatchEulerDiscreteScheduler"}
    with pytest.raises(ModelError, match="allowed for this model: FlowMatchEulerDiscreteScheduler"):
        models.set_sampler(pipe, "Euler", "", 20)


@pytest.mark.parametrize(
    ("kind", "options", "written"),
    [
        ("Euler", {}, ("Euler", None)),
        ("Euler", {"timestep_spacing": "trailing"}, ("Euler", "Simple")),
        ("Euler", {"timestep_spacing": "leading"}, ("EulerDiscreteScheduler", None)),
        ("Euler", {"use_karras_sigmas": True}, ("Euler", "Karras")),
        ("Euler", {"use_exponential_sigmas": True}, ("Euler", "Exponential")),
        ("EulerAncestral", {}, ("Euler a", None)),
        ("LMS", {"use_beta_sigmas": True}, ("LMS", "Beta")),
        ("Heun", {"use_karras_sigmas": True}, ("Heun", "Karras")),
        ("DPMSolverMultistep", {}, ("DPM++ 2M", "SGM Uniform")),
        ("DPMSolverMultistep", {"use_karras_sigmas": True}, ("DPM++ 2M", "Karras")),
        ("DPMSolverMultistep", {"use_lu_lambdas": True}, ("DPM++ 2M", "Exponential")),
        ("DPMSolverMultistep", {"solver_order": 3}, ("DPMSolverMultistepScheduler", None)),
        # The WebUI leaves out the last but one.
        ("KDPM2", {"use_karras_sigmas": True}, ("KDPM2DiscreteScheduler", None)),
        ("DDIM", {"timestep_spacing": "trailing"}, ("DDIM", None)),
    ],
)
def test_what_a_models_own_scheduler_does_is_written(
    kind: str, options: dict[str, Any], written: tuple[str, str | None]
) -> None:
    known = [f"{kind}Scheduler", f"{kind}DiscreteScheduler"]
    made = next(getattr(diffusers, name) for name in known if hasattr(diffusers, name))
    pipe = pipe_of(own := made(**TRAINING, **options))
    found = models.sampler_of(pipe, 20)
    assert (found["Sampler"], found.get("Schedule type")) == written
    # What is written makes the same picture again.
    models.set_sampler(pipe, found["Sampler"], found.get("Schedule type", ""), 20)
    assert pipe.scheduler is own


def test_a_models_own_sampler_takes_another_schedule_type() -> None:
    pipe = pipe_of(leading())
    models.set_sampler(pipe, "", "Karras", 20)
    assert models.sampler_of(pipe, 20) == {"Sampler": "Euler", "Schedule type": "Karras"}


PAINTED = {"Steps": "4", "CFG scale": "7", "Seed": "7", "Size": "32x16"}


@pytest.fixture(scope="module")
def painter(model: Path) -> Painter:
    return Painter(model, None, [], "cpu", None)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_schedule_type_paints_another_picture(painter: Painter, name: str) -> None:
    pictures: dict[bytes, str] = {}
    wanted = SCHEDULES if name in SCHEDULED else ["Automatic"]
    for schedule in wanted:
        job = Infotext("girl", "hat", {**PAINTED, "Sampler": name, "Schedule type": schedule})
        picture, made = painter.paint(job, Settings(), "")
        assert made.parameters["Sampler"] == name
        pictures.setdefault(np.asarray(picture).tobytes(), schedule)
        again, _ = painter.paint(made, Settings(), "")
        assert np.array_equal(np.asarray(again), np.asarray(picture))
    # Two pairs are the same by definition.
    assert len(pictures) == (len(SCHEDULES) - 2 if name in SCHEDULED else 1)


@pytest.mark.parametrize("unit", ["steps", "percent"])
@pytest.mark.parametrize(("name", "evaluations"), [("Euler", 1), ("Heun", 2), ("DPM2", 2)])
def test_both_evaluations_of_a_step_have_the_same_negative_prompt(
    painter: Painter, name: str, evaluations: int, unit: str
) -> None:
    values = {"critical_step": 1, "stop_step": 3} if unit == "steps" else {
        "critical_step": 30, "stop_step": 90}  # fmt: skip
    settings = Settings.parse({"enabled": True, "unit": unit, **values})
    wanted = {**PAINTED, "Sampler": name}
    picture, made = painter.paint(Infotext("girl", "hat", wanted), settings, "")
    assert painter.steps(wanted) == 4
    assert Settings.from_infotext(made.parameters) == settings
    with lazyneg.lazy_negative(painter.pipe, evaluations, stop_step=3 * evaluations):
        expected, _ = painter.paint(Infotext("girl", "hat", wanted), Settings(), "")
    assert np.array_equal(np.asarray(picture), np.asarray(expected))


def test_a_window_that_rounding_empties_never_acts(painter: Painter) -> None:
    wanted = {**PAINTED, "Sampler": "Heun"}
    settings = Settings.parse(
        {"enabled": True, "unit": "percent", "critical_step": 0, "stop_step": 4}
    )
    picture, _ = painter.paint(Infotext("girl", "hat", wanted), settings, "")
    empty, _ = painter.paint(Infotext("girl", "", wanted), Settings(), "")
    assert np.array_equal(np.asarray(picture), np.asarray(empty))
