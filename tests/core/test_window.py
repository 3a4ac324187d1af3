from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lazyneg.core.window import Window, step_of_call, step_of_sigma

steps = st.integers(1, 200)
step_values = st.integers(0, 300)


@given(critical=step_values, stop=st.none() | step_values, steps=steps)
def test_active_steps_are_those_from_critical_to_stop(
    critical: int, stop: int | None, steps: int
) -> None:
    window = Window(critical, stop, steps)
    active = [step for step in range(steps) if window.active(step)]
    assert active == list(range(steps))[critical : steps if stop is None else stop]
    assert window.everywhere == (len(active) == steps)


@given(critical=step_values, stop=st.none() | step_values, steps=steps, more=step_values)
def test_calls_past_the_last_step_count_as_the_last_step(
    critical: int, stop: int | None, steps: int, more: int
) -> None:
    window = Window(critical, stop, steps)
    assert window.active(steps - 1 + more) == window.active(steps - 1)


@given(steps=steps, per_step=st.integers(1, 3))
def test_each_step_has_its_own_calls(steps: int, per_step: int) -> None:
    served = [step_of_call(call, steps * per_step, steps) for call in range(steps * per_step)]
    assert served == [step for step in range(steps) for _ in range(per_step)]


@given(
    levels=st.lists(st.floats(0.01, 100, allow_nan=False), min_size=1, max_size=30, unique=True),
    between=st.floats(0.001, 0.999),
)
def test_a_noise_level_belongs_to_the_step_that_starts_above_it(
    levels: list[float], between: float
) -> None:
    sigmas = [*sorted(levels, reverse=True), 0.0]
    for step, (start, end) in enumerate(itertools.pairwise(sigmas)):
        assert step_of_sigma(start, sigmas) == step
        inside = end + (start - end) * between
        if end < inside < start:
            assert step_of_sigma(inside, sigmas) == step
    assert step_of_sigma(sigmas[0] * 2, sigmas) == 0
