"""Several critical steps of one call: exact, and nothing computed twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import diffusers
import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0

import lazyneg
from lazyneg.core.settings import SettingsError
from lazyneg.diffusers.sharing import Tape
from tests.diffusers.test_stateful import Fading, Previewing, Setting, Storing, deprecated, each
from tests.diffusers.tiny import FAMILIES, pipeline, request

STEPS = [0, 1, 3, 5]
DENOISERS = ("controlnet", "unet", "transformer", "transformer_2")


def single(pipe: Any, family: str, **more: Any) -> dict[int, torch.Tensor]:
    """Calls of their own, in the order in which a sweep makes them."""
    found = {}
    for step in sorted(STEPS, reverse=True):
        torch.manual_seed(3)
        made = lazyneg.forward_lazy_negative(pipe, critical_step=step, **request(family, **more))
        found[step] = torch.as_tensor(made[0])
    return found


def swept(pipe: Any, family: str, **more: Any) -> dict[int, torch.Tensor]:
    torch.manual_seed(3)
    made = lazyneg.sweep_steps(pipe, critical_steps=STEPS, **request(family, **more))
    assert list(made) == STEPS
    return {step: torch.as_tensor(output[0]) for step, output in made.items()}


def agree(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[step], other[step]) for step in one)


@contextlib.contextmanager
def counted(pipe: Any) -> Iterator[list[Any]]:
    """The modules whose forward is run, by a hook that only looks on."""
    calls: list[Any] = []
    hooks = [
        part.register_forward_hook(lambda module, *_: calls.append(module))
        for name in DENOISERS
        if (part := pipe.components.get(name))
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def least(steps: int) -> int:
    """Steps that are to be computed: all of one run, and of the others those from where they part.

    The one with critical step 5 is the one without a negative prompt, or parts from it at its end.
    """
    return steps + sum(max(steps - step, 0) for step in STEPS if step < steps)


TWO_CALLS = {"flux", "qwen", "wan", "wan with two transformers"}
"""Families that guide in two calls, the one with the prompt first."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    pipe = pipeline(family)
    with counted(pipe) as calls:
        wanted = single(pipe, family)
        steps = 4 if "img2img" in family else 5
        calls_a_step = len(calls) // (len(STEPS) * steps)
        calls.clear()
        assert agree(swept(pipe, family), wanted)
    # In the step in which a run parts from the one before, the prompt's call is still the same.
    shared = 3 if family in TWO_CALLS else 0
    assert len(calls) == calls_a_step * least(steps) - shared
    assert len({tensor.sum().item() for tensor in wanted.values()}) == len(STEPS)


SCHEDULERS: dict[str, dict[str, Any]] = {
    "EulerAncestralDiscreteScheduler": {},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++"},
    "DPMSolverSDEScheduler": {},
    "HeunDiscreteScheduler": {},
    "PNDMScheduler": {"skip_prk_steps": True},
    "UniPCMultistepScheduler": {},
}
"""With noise, with history, of second order."""


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart"])
def test_schedulers(family: str, scheduler: str) -> None:
    pipe = pipeline(family)
    kind = getattr(diffusers, scheduler)
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **SCHEDULERS[scheduler])
    with counted(pipe) as calls:
        wanted = single(pipe, family)
        steps = len(calls) // len(STEPS)
        calls.clear()
        assert agree(swept(pipe, family), wanted)
    # The first run is that of the largest critical step, also where it has more iterations.
    assert len(calls) == steps + sum(steps - step for step in STEPS[:-1])


@pytest.mark.parametrize(("area", "adaptive"), [(20, False), (100, True), (20, True)])
def test_area_and_adaptive_share_what_is_the_same(area: int, adaptive: bool) -> None:
    pipe = pipeline("sd")
    choice = {"area": area, "adaptive": adaptive}
    with counted(pipe) as calls:
        wanted = single(pipe, "sd", **choice)
        alone = len(calls)
        calls.clear()
        assert agree(swept(pipe, "sd", **choice), wanted)
    # Before the critical step all is the same, and in it the call without the negative prompt is.
    assert alone - len(calls) == 3 + 1 + 0 + 3


def test_a_stop_step_and_an_early_prompt() -> None:
    pipe = pipeline("sd")
    more: dict[str, Any] = {"stop_step": 4, "early_prompt": "blurry"}
    steps = [3, 0, 2]
    wanted = [
        torch.as_tensor(
            lazyneg.forward_lazy_negative(pipe, critical_step=step, **more, **request("sd"))[0]
        )
        for step in steps
    ]
    with counted(pipe) as calls:
        made = lazyneg.sweep_steps(pipe, critical_steps=steps, **more, **request("sd"))
    assert list(made) == steps
    for output, expected in zip(made.values(), wanted, strict=True):
        assert torch.equal(output[0], expected)
    assert len(calls) == 5 + 3 + 5


def test_percent_and_positional_arguments() -> None:
    pipe = pipeline("sd")
    more = request("sd")
    prompt = more.pop("prompt")
    by_steps = lazyneg.sweep_steps(pipe, prompt, critical_steps=[1, 2], **more)
    more["generator"].manual_seed(0)
    by_percent = lazyneg.sweep_steps(pipe, prompt, critical_steps=[20, 40], unit="percent", **more)
    for one, other in zip(by_steps.values(), by_percent.values(), strict=True):
        assert torch.equal(one[0], other[0])


def test_generators_end_as_after_one_call() -> None:
    pipe = pipeline("sd")
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    one, other = (request("sd")["generator"] for _ in range(2))
    pipe(**request("sd", generator=one))
    lazyneg.sweep_steps(pipe, critical_steps=STEPS, **request("sd", generator=other))
    assert torch.equal(one.get_state(), other.get_state())
    torch.manual_seed(3)
    pipe(**request("sd", generator=None))
    after = torch.get_rng_state()
    torch.manual_seed(3)
    lazyneg.sweep_steps(pipe, critical_steps=STEPS, **request("sd", generator=None))
    assert torch.equal(torch.get_rng_state(), after)


def test_what_was_applied_stays_and_does_not_matter() -> None:
    pipe = pipeline("sd")
    wanted = single(pipe, "sd")
    lazyneg.apply(pipe, 2)
    applied = torch.as_tensor(pipe(**request("sd"))[0])
    assert agree(swept(pipe, "sd"), wanted)
    assert torch.equal(pipe(**request("sd"))[0], applied)


def test_bad_values_are_told_before_any_call() -> None:
    pipe = pipeline("sd")
    with counted(pipe) as calls, pytest.raises(SettingsError, match=r"critical_step is 2\.5"):
        lazyneg.sweep_steps(pipe, critical_steps=[1, 2.5], **request("sd"))  # type: ignore[list-item]
    assert not calls


def hang(part: Any) -> None:
    """A hook that acts by its own count of calls."""
    seen: list[int] = []

    def fade(_module: Any, _inputs: Any, output: Any) -> Any:
        seen.append(1)
        factor = 1 + 1 / len(seen)
        return output * factor if isinstance(output, torch.Tensor) else (output[0] * factor,)

    part.register_forward_hook(fade)


def hang_in_place(part: Any) -> None:
    """The same on the input, in place."""
    seen: list[int] = []

    def fade(_module: Any, inputs: Any) -> None:
        seen.append(1)
        inputs[0].mul_(1 + 1 / len(seen))

    part.register_forward_pre_hook(fade)


class Hidden(AttnProcessor2_0):
    """Acts by a count that cannot be seen from outside."""

    counts: ClassVar[WeakKeyDictionary[Any, int]] = WeakKeyDictionary()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.counts[self] = self.counts.get(self, 0) + 1
        return super().__call__(*args, **kwargs) * (1 + 1 / self.counts[self])


class Counting(torch.nn.Module):
    """Acts by a count that is kept in an attribute."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.inner(*args, **kwargs) * (1 + 1 / self.calls)


def count(pipe: Any) -> None:
    pipe.unet.conv_out = Counting(pipe.unet.conv_out)


def wrap_in_forward(pipe: Any) -> None:
    forward, seen = pipe.unet.mid_block.forward, []

    def fading(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return forward(*args, **kwargs) * (1 + 1 / len(seen))

    pipe.unet.mid_block.forward = fading


def hang_and_compile(pipe: Any) -> None:
    hang(pipe.unet)
    # As its ``compile`` does, which here would take minutes.
    pipe.unet._compiled_call_impl = pipe.unet._call_impl


def drop(pipe: Any) -> None:
    for part in pipe.unet.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    pipe.unet.train()


@pytest.mark.parametrize(
    "change",
    [
        lambda pipe: each(pipe, Fading),
        lambda pipe: each(pipe, Storing),
        lambda pipe: each(pipe, Hidden),
        lambda pipe: hang(pipe.unet),
        lambda pipe: hang(pipe.unet.mid_block),
        lambda pipe: hang_in_place(pipe.unet),
        count,
        wrap_in_forward,
        hang_and_compile,
        drop,
    ],
    ids=[
        "fading",
        "storing",
        "hidden",
        "hook",
        "hook inside",
        "in place",
        "module",
        "forward",
        "compiled",
        "dropout",
    ],
)
def test_denoisers_that_keep_something_are_always_called(change: Callable[[Any], Any]) -> None:
    alone, together = pipeline("sd"), pipeline("sd")
    change(alone)
    change(together)
    wanted = single(alone, "sd")
    plain = pipeline("sd")
    assert not torch.equal(wanted[3], single(plain, "sd")[3])
    assert agree(swept(together, "sd"), wanted)


class Resetting(StableDiffusionPipeline):
    """Begins the count in its UNet anew."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(self.unet.conv_out, Counting):
            count(self)
        self.unet.conv_out.calls = 0
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("kind", [Previewing, Setting, Resetting])
def test_state_that_the_call_sets_up(kind: Any) -> None:
    pipe = kind(**pipeline("sd").components)
    pipe.kind = Storing
    pipe.set_progress_bar_config(disable=True)
    assert agree(swept(pipe, "sd"), single(pipe, "sd"))


def test_self_attention_guidance() -> None:
    pipe = deprecated(StableDiffusionSAGPipeline)
    assert agree(swept(pipe, "sd", sag_scale=0.75), single(pipe, "sd", sag_scale=0.75))


def test_caches() -> None:
    pipe = pipeline("flux")
    uncached = single(pipe, "flux")
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    wanted = single(pipe, "flux")
    assert not torch.equal(wanted[3], uncached[3])
    assert agree(swept(pipe, "flux"), wanted)


def test_a_callback_that_uses_what_a_hook_saw() -> None:
    def request_of(pipe: Any) -> dict[str, Any]:
        seen: list[torch.Tensor] = []
        pipe.unet.register_forward_hook(lambda *got: seen.append(got[-1][0]))

        def lean(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {"latents": tensors["latents"] + seen[-1].mean()}

        return {"callback_on_step_end": lean}

    alone, together = pipeline("sd"), pipeline("sd")
    wanted = single(alone, "sd", **request_of(alone))
    assert agree(swept(together, "sd", **request_of(together)), wanted)


@pytest.mark.parametrize("undone", [False, True])
def test_a_callback_that_changes_the_denoiser(undone: bool) -> None:
    def free(pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
        if step == 4 and undone:
            pipe.disable_freeu()
        return tensors

    alone, together = pipeline("sd"), pipeline("sd")
    wanted = single(alone, "sd", callback_on_step_end=free)
    plain = single(pipeline("sd"), "sd")
    assert not torch.equal(wanted[5], plain[5])
    with counted(together) as calls:
        made = lazyneg.sweep_steps(together, critical_steps=STEPS, **request("sd"))
    assert len(calls) == least(5)
    assert torch.equal(made[5][0], plain[5])
    assert agree(swept(together, "sd", callback_on_step_end=free), wanted)


def test_a_callback_that_uses_the_models_meanwhile() -> None:
    wanted = single(pipeline("sd"), "sd")
    pipe = pipeline("sd")
    other = StableDiffusionPipeline(**{**pipe.components, "scheduler": pipeline("sd").scheduler})
    other.set_progress_bar_config(disable=True)

    def meanwhile(*arguments: Any) -> Any:
        other(**request("sd", negative_prompt="hat", num_inference_steps=2))
        return arguments[-1]

    assert agree(swept(pipe, "sd", callback_on_step_end=meanwhile), wanted)


class Inverse(torch.nn.Module):
    def forward(self, sample: torch.Tensor, *, flag: Any) -> torch.Tensor:
        return 1 / sample


def test_what_is_equal_but_not_the_same_is_computed() -> None:
    pipe = SimpleNamespace(unet=Inverse())
    zero = torch.zeros(1, 2)
    calls: list[Any] = []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    tape = Tape()
    for sample, flag, computed in [
        (zero, True, True),
        (zero.clone(), True, False),
        (-zero, True, True),
        (-zero, 1, True),
        (zero.half(), 1, True),
        (zero.view(2, 1), 1, True),
        (torch.zeros(2, 4)[:, :1], 1, True),
        (zero / zero, 1, True),
        (zero / zero, 1, False),
        (zero / zero, object(), True),
        (zero / zero, 1, True),
    ]:
        calls.clear()
        tape.begin(pipe, ())
        made = tape.called(pipe.unet, (sample,), {"flag": flag})
        assert torch.equal(made.nan_to_num(), (1 / sample).nan_to_num())
        assert made.dtype == sample.dtype
        assert bool(calls) is computed


class Telling(torch.nn.Module):
    def forward(self, output: Any) -> Any:
        return output


@pytest.mark.parametrize(
    "output",
    [None, 1.5, [], object(), torch.ones(1, requires_grad=True), torch.ones(1).to_sparse()],
)
def test_outputs_that_cannot_be_given_again(output: Any) -> None:
    pipe = SimpleNamespace(unet=Telling())
    calls: list[Any] = []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    pipe.unet.register_forward_pre_hook(lambda *_: None)
    tape = Tape()
    for count in (1, 2):
        tape.begin(pipe, ())
        assert tape.called(pipe.unet, (output,), {}) is output
        assert len(calls) == count


def test_outputs_may_be_changed() -> None:
    pipe = SimpleNamespace(unet=Inverse())
    tape = Tape()
    for _ in range(3):
        tape.begin(pipe, ())
        made = tape.called(pipe.unet, (torch.ones(2),), {"flag": True})
        assert torch.equal(made, torch.ones(2))
        made.zero_()
