"""The equalities on every sampler that the host lists, and on those of the support extension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import WebUI, same

STEPS = 6
OWN = {"Two calls", "Thin wrapper", "First apart", "Last apart"}
"""Samplers of the test support extension, written as hosts write them."""
APART = {"First apart", "Last apart", "DPM++ 2S Ancestral CFG++ Intern"}
"""Samplers that make a step ahead of their loop or behind it."""
LAST_UNSEEN = {"DPM++ 2S Ancestral CFG++ Dyn", "DPM++ 2S Ancestral CFG++ Intern"}
"""Samplers of reForge whose pictures do not show their last step: one leaves it out, the other's
are black and white by then.
"""


@dataclass(frozen=True)
class Sampler:
    """A sampler, and how its steps are told without the extension.

    Attributes:
        name: Its name.
        by: ``turn`` of its loop over the schedule, number of the ``call``, or ``sigma``.
        calls: Denoiser calls in each step but the last, 0 where steps differ.
        planned: Denoiser calls that the host plans for a run.
    """

    name: str
    by: str
    calls: int
    planned: int

    def request(self, **changes: Any) -> dict[str, Any]:
        request: dict[str, Any] = {"sampler_name": self.name, "steps": STEPS, **changes}
        if "CFG++" in self.name:
            request["cfg_scale"] = 2.0
        return request

    def reference(self, begin: int, end: int | None = None) -> dict[str, Any]:
        """A window of steps, for the support extension."""
        each = self.calls if self.by == "call" else 1
        window = {f"from_{self.by}": begin * each, f"to_{self.by}": end and end * each}
        return {"reference": {"first": window}}


@pytest.fixture(scope="module")
def samplers(webui: WebUI) -> list[Sampler | str]:
    """Each sampler; for one that the host itself cannot run, the reason."""
    return [probed(webui, about["name"]) for about in webui.get("samplers")]


def probed(webui: WebUI, name: str) -> Sampler | str:
    request = Sampler(name, "turn", 1, STEPS).request()
    if name == "DPM adaptive" and "sd2-v" in webui.kind.checkpoints:
        # On the short range of the other checkpoints it makes hundreds of steps.
        request["override_settings"] = {"sd_model_checkpoint": "sd1-long"}
    try:
        made = webui(support={"calls": True}, **request)
    except AssertionError as error:
        return f"{name} fails without the extension too: {error}"
    if made.pixels.std() == 0:
        return f"{name} paints one colour without the extension too"
    calls = made.params["Calls"]
    turns = [turn for turn in calls["turns"] if turn is not None]
    each = [turns.count(turn) for turn in range(max(turns, default=0))]
    uniform = each[0] if len(set(each)) == 1 and len(turns) == len(calls["turns"]) else 0
    whole = len(set(turns)) == STEPS or name in APART
    if whole and "timesteps" not in calls:
        return Sampler(name, "turn", uniform, calls["planned"])
    planned = calls["planned"]
    if name == "RES Solver":
        # The call behind its loop has the noise level of the step before.
        return Sampler(name, "call", 2, planned)
    if "timesteps" in calls or len(calls["turns"]) in (planned - 1, planned):
        return Sampler(name, "call", planned // STEPS, planned)
    return Sampler(name, "sigma", 0, planned)


@pytest.fixture
def each(
    samplers: list[Sampler | str], subtests: pytest.Subtests
) -> Callable[[Callable[[Sampler], None]], None]:
    """The samplers that there are, each in a test of its own."""

    def run(check: Callable[[Sampler], None]) -> None:
        for sampler in samplers:
            with subtests.test(sampler=str(sampler)):
                if isinstance(sampler, str):
                    pytest.skip(sampler)
                check(sampler)

    return run


def test_the_samplers_are_there(webui: WebUI, samplers: list[Sampler | str]) -> None:
    """Those that the host cannot run are the ones known for it; the rest is told apart."""
    broken = {
        text.split(" fails")[0].split(" paints")[0] for text in samplers if isinstance(text, str)
    }
    assert broken == set(webui.kind.broken)
    found = {sampler.name: sampler for sampler in samplers if isinstance(sampler, Sampler)}
    assert found.keys() >= OWN | {"Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "LCM"}
    assert [found[name].by for name in ("Euler", "Heun", "DPM++ SDE", *sorted(OWN))] == ["turn"] * 7
    assert (found["Heun"].calls, found["Two calls"].calls) == (2, 2)
    by_sigma = {name for name, sampler in found.items() if sampler.by == "sigma"}
    assert all(any(word in name for word in ("adaptive", "ODE")) for name in by_sigma)


def test_txt2img(webui: WebUI, each: Any) -> None:
    def check(sampler: Sampler) -> None:
        request = sampler.request()
        plain = webui(**request)
        without = webui(**request, negative_prompt="")
        assert not same(plain, without)
        assert same(webui([True, 0], **request), plain)
        assert same(webui([True, STEPS], **request), without)
        shown = [plain]
        # The last step would be lost by a counter that runs late.
        for step in (1, 2, STEPS - 1):
            lazy = webui([True, step], **request)
            assert same(lazy, webui(support=sampler.reference(step), **request)), step
            # One that chooses its own steps may make none between two of the schedule.
            different = (plain,) if sampler.by == "sigma" else (*shown, without)
            if step == STEPS - 1 and sampler.name in LAST_UNSEEN:
                different = (plain,)
            assert all(not same(lazy, other) for other in different), step
            shown.append(lazy)

    each(check)


@pytest.mark.parametrize(("schedule", "steps"), [("DDIM", 60), ("Beta", 9), ("Karras", 5)])
@pytest.mark.parametrize("name", ["Euler", "Heun", "Thin wrapper"])
def test_schedules(webui: WebUI, name: str, schedule: str, steps: int) -> None:
    """Not every schedule has as many noise levels as steps were asked for: DDIM has 64 for 60."""
    request = {"sampler_name": name, "scheduler": schedule, "steps": steps}
    if schedule not in webui.schedules:
        pytest.skip(f"{webui.kind.name} has no schedule type {schedule}")
    lazy = webui([True, 3], **request)
    reference = {"reference": {"first": {"from_turn": 3}}}
    assert same(lazy, webui(support=reference, **request))
    assert not same(lazy, webui(**request))


def test_the_hosts_prompt_editing(webui: WebUI, each: Any) -> None:
    """The host switches one call late: `[:x:n]` acts from call n + 1.

    It can only follow samplers of which it knows how often they call.
    """

    def check(sampler: Sampler) -> None:
        if sampler.by == "sigma" or sampler.calls * STEPS != sampler.planned:
            pytest.skip(f"{sampler.name} makes other calls than the host plans")
        request = sampler.request()
        edited = f"[:glasses, hat:{sampler.calls * 2 - 1}]"
        assert same(webui([True, 2], **request), webui(negative_prompt=edited, **request))

    each(check)


def test_stop_step(webui: WebUI, each: Any) -> None:
    def check(sampler: Sampler) -> None:
        request = sampler.request()
        lazy = webui([True, 1, "steps", 4], **request)
        assert same(lazy, webui(support=sampler.reference(1, 4), **request))
        assert not same(lazy, webui([True, 1], **request))

    each(check)


def test_img2img(webui: WebUI, each: Any, init_images: list[str]) -> None:
    """A pass of 5 steps: int(0.7 * 6) + 1."""

    def check(sampler: Sampler) -> None:
        request = sampler.request(denoising_strength=0.7, init_images=init_images)
        plain = webui(**request)
        if plain.pixels.std() == 0:
            pytest.skip(f"{sampler.name} paints one colour in img2img without the extension too")
        without = webui(**request, negative_prompt="")
        assert same(webui([True, 0], **request), plain)
        assert same(webui([True, 5], **request), without)
        lazy = webui([True, 2], **request)
        assert same(lazy, webui(support=sampler.reference(2), **request))
        assert not same(lazy, plain)
        assert not same(lazy, without)

    each(check)
