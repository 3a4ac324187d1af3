"""Any sequence of what people do with pipelines: each call gives what it gives alone."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionPipeline,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import lazyneg
from lazyneg.core.settings import SettingsError
from lazyneg.diffusers.memory import STATE
from tests.diffusers.reference import sd_loop
from tests.diffusers.tiny import pipeline, request

EXAMPLES = int(os.environ.get("SEQUENCES", 3))
"""Of up to 25 steps each. By hand: `SEQUENCES=200 pytest -s tests/diffusers/test_sequences.py`."""

SCHEDULERS = {
    kind.__name__: kind
    for kind in (
        DDIMScheduler,
        EulerDiscreteScheduler,
        # Draws in each step, and looks at the step before, and calls twice a step.
        EulerAncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
        HeunDiscreteScheduler,
    )
}


class Delay(NamedTuple):
    critical_step: int
    unit: str = "steps"
    stop_step: int | None = None
    early_prompt: str = ""
    area: int = 100
    adaptive: bool = False


class Request(NamedTuple):
    negative: str | None
    steps: int
    seed: int
    pictures: int


@st.composite
def delays(draw: st.DrawFn) -> Delay:
    percent = draw(st.booleans())
    critical = draw(st.sampled_from([0, 34, 50, 100] if percent else [0, 1, 2, 9]))
    stops = [stop for stop in ((60, 99) if percent else (2, 3)) if stop > critical]
    return Delay(
        critical,
        "percent" if percent else "steps",
        draw(st.sampled_from([None, None, *stops])),
        draw(st.sampled_from(["", "", "blurry"])),
        draw(st.sampled_from([100, 100, 30])),
        draw(st.sampled_from([False, False, True])),
    )


requests = st.builds(
    Request,
    st.sampled_from(["wearing glasses", "wearing glasses", "ugly", "", None]),
    st.integers(1, 3),
    st.integers(0, 1),
    st.sampled_from([1, 1, 2]),
)


def arguments(asked: Request) -> dict[str, Any]:
    return request(
        "sd",
        negative_prompt=asked.negative,
        num_inference_steps=asked.steps,
        num_images_per_prompt=asked.pictures,
        generator=torch.Generator().manual_seed(asked.seed),
    )


@functools.cache
def alone() -> Any:
    """A pipeline that the library never sees."""
    return pipeline("sd")


@functools.cache
def config() -> Any:
    return alone().scheduler.config


def switched(pipe: Any, scheduler: str) -> None:
    # Not from the scheduler before, which forgets some; the offset is what pipelines put in.
    pipe.scheduler = SCHEDULERS[scheduler].from_config(config(), steps_offset=1)


class Interrupted(Exception):  # noqa: N818
    pass


def ending(step: int, how: str) -> Callable[..., Any]:
    """A callback that ends a call after a step of its loop."""

    def callback(pipe: Any, now: int, _: Any, given: Any) -> Any:
        if now == step and how == "raise":
            raise Interrupted
        if now == step:
            pipe._interrupt = True
        return given

    return callback


@functools.cache
def expected(delay: Delay | None, asked: Request, scheduler: str, last: int | None) -> Any:
    """What a call gives by itself."""
    pipe = alone()
    switched(pipe, scheduler)
    pipe.scheduler.set_timesteps(asked.steps)
    steps = len(pipe.scheduler.timesteps)
    share = steps if delay and delay.unit == "percent" else 100
    critical, stop = (
        (delay.critical_step * share // 100, delay.stop_step and delay.stop_step * share // 100)
        if delay
        else (0, None)
    )
    chooses = delay is not None and (delay.area < 100 or delay.adaptive)
    # With nothing to delay there is no third row either.
    nothing = delay is None or not (asked.negative or delay.early_prompt)
    plain = nothing or (critical == 0 and stop is None and not chooses)
    never = critical >= steps or (stop is not None and stop <= critical)
    if plain or (never and delay and not delay.early_prompt):
        more = {} if last is None else {"callback_on_step_end": ending(last, "interrupt")}
        called = asked if plain else asked._replace(negative="")
        return pipe(**arguments(called), **more)[0]
    assert delay
    return sd_loop(
        pipe,
        critical,
        stop_step=stop,
        early_prompt=delay.early_prompt,
        area=delay.area,
        adaptive=delay.adaptive,
        interrupted_after=last,
        **arguments(asked),
    )


@dataclass
class Member:
    """A pipeline, and what was done to it."""

    pipe: Any
    scheduler: str = "DDIMScheduler"
    delay: Delay | None = None

    def check(self, made: Any, asked: Request, last: int | None = None) -> None:
        assert torch.equal(made, expected(self.delay, asked, self.scheduler, last))

    def call(self, asked: Request, **more: Any) -> Any:
        return self.pipe(**arguments(asked), **more)[0]


class Sequences(RuleBasedStateMachine):
    members: Bundle[Member] = Bundle("members")
    made = 0

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Member] = []

    def new(self, member: Member) -> Member:
        member.pipe.set_progress_bar_config(disable=True)
        self.all.append(member)
        return member

    @initialize(target=members)
    def build(self) -> Member:
        member = Member(pipeline("sd"))
        switched(member.pipe, member.scheduler)
        return self.new(member)

    @rule(member=members, delay=delays())
    def apply(self, member: Member, delay: Delay) -> None:
        assert lazyneg.apply(member.pipe, **delay._asdict()) is member.pipe
        member.delay = delay

    @rule(member=members, wrong=st.sampled_from([{"critical_step": -1}, {"area": 0}, {"unit": 5}]))
    def misapply(self, member: Member, wrong: dict[str, Any]) -> None:
        with pytest.raises(SettingsError):
            lazyneg.apply(member.pipe, **wrong)

    @rule(member=members)
    def remove(self, member: Member) -> None:
        lazyneg.remove(member.pipe)
        member.delay = None

    @rule(member=members, asked=requests)
    def call(self, member: Member, asked: Request) -> None:
        member.check(member.call(asked), asked)

    @rule(member=members, asked=requests, delay=delays(), fails=st.booleans())
    def call_within(self, member: Member, asked: Request, delay: Delay, fails: bool) -> None:
        with lazyneg.lazy_negative(member.pipe, **delay._asdict()):
            Member(member.pipe, member.scheduler, delay).check(member.call(asked), asked)
            if fails:
                with pytest.raises(Interrupted):
                    member.call(asked, callback_on_step_end=ending(0, "raise"))

    @rule(member=members, asked=requests, delay=delays())
    def call_once(self, member: Member, asked: Request, delay: Delay) -> None:
        made = lazyneg.forward_lazy_negative(member.pipe, **arguments(asked), **delay._asdict())[0]
        Member(member.pipe, member.scheduler, delay).check(made, asked)

    @rule(member=members, asked=requests, delay=delays(), others=st.sets(st.integers(0, 3)))
    def sweep(self, member: Member, asked: Request, delay: Delay, others: set[int]) -> None:
        shared = delay._replace(stop_step=None)._asdict()
        steps = {shared.pop("critical_step"), *others}
        made = lazyneg.sweep_steps(member.pipe, **arguments(asked), critical_steps=steps, **shared)
        for step in steps:
            one = Member(member.pipe, member.scheduler, Delay(step, **shared))
            one.check(made[step][0], asked)

    @rule(member=members, asked=requests, step=st.integers(0, 2))
    def interrupt(self, member: Member, asked: Request, step: int) -> None:
        made = member.call(asked, callback_on_step_end=ending(step, "interrupt"))
        member.check(made, asked, step)

    @rule(member=members, asked=requests)
    def raise_in_midst(self, member: Member, asked: Request) -> None:
        with pytest.raises(Interrupted):
            member.call(asked, callback_on_step_end=ending(asked.steps // 2, "raise"))

    @rule(member=members, asked=requests)
    def call_in_a_thread(self, member: Member, asked: Request) -> None:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(member.call(asked)))
        thread.start()
        thread.join()
        member.check(found[0], asked)

    @rule(member=members, other=members, asked=requests, meanwhile=requests)
    def call_in_a_call(
        self, member: Member, other: Member, asked: Request, meanwhile: Request
    ) -> None:
        """Another thread calls another pipeline, perhaps with the same models."""
        if member.pipe is other.pipe:
            return
        found: list[Any] = []

        def callback(_: Any, step: int, __: Any, given: Any) -> Any:
            if step == 0:
                thread = threading.Thread(target=lambda: found.append(other.call(meanwhile)))
                thread.start()
                thread.join()
            return given

        member.check(member.call(asked, callback_on_step_end=callback), asked)
        other.check(found[0], meanwhile)

    @rule(target=members, member=members)
    def deep_copy(self, member: Member) -> Member:
        return self.new(Member(copy.deepcopy(member.pipe), member.scheduler, member.delay))

    @rule(target=members, member=members)
    def share_models(self, member: Member) -> Member:
        parts = {**member.pipe.components, "scheduler": copy.deepcopy(member.pipe.scheduler)}
        return self.new(Member(StableDiffusionPipeline(**parts), member.scheduler))

    @rule(target=members, member=members)
    def save_and_load(self, member: Member) -> Member:
        with tempfile.TemporaryDirectory() as folder:
            member.pipe.save_pretrained(folder)
            loaded = StableDiffusionPipeline.from_pretrained(folder)
        return self.new(Member(loaded, member.scheduler))

    @rule(member=members, scheduler=st.sampled_from(sorted(SCHEDULERS)))
    def switch_scheduler(self, member: Member, scheduler: str) -> None:
        switched(member.pipe, scheduler)
        member.scheduler = scheduler

    @invariant()
    def nothing_is_left(self) -> None:
        type(self).made += 1
        for member in self.all:
            assert isinstance(member.pipe, StableDiffusionPipeline)
            assert (type(member.pipe) is StableDiffusionPipeline) is (member.delay is None)
            assert (STATE in vars(member.pipe)) is (member.delay is not None)
            unet = vars(member.pipe.unet)
            assert not {"forward", "_compiled_call_impl"} & unet.keys()
            assert not unet["_forward_hooks"]
            assert not unet["_forward_pre_hooks"]


def test_sequences() -> None:
    Sequences.made = 0
    run_state_machine_as_test(
        Sequences,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            # The same ones each time in the tests, and others each time by hand.
            derandomize="SEQUENCES" not in os.environ,
            database=None,
        ),
    )
    print(f"{Sequences.made} steps")
    assert Sequences.made > EXAMPLES
