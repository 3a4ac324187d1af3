"""What runs in the midst of a delayed call is none of its business."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.models.attention_processor import AttnProcessor2_0

import lazyneg
from tests.diffusers.reference import sd_loop, spliced
from tests.diffusers.tiny import pipeline, request

FAMILIES = [
    "sd",
    "sd img2img",
    "sd inpaint",
    "sd controlnet",
    "sdxl",
    "sdxl img2img",
    "sd3",
    "flux",
]


def latents(pipe: Any, family: str, **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request(family, **more))[0])


def twin(pipe: Any) -> Any:
    """Another pipeline with the same models."""
    parts = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}
    other = lazyneg.remove(copy.copy(pipe))
    other = type(other)(**parts)
    other.set_progress_bar_config(disable=True)
    return other


def in_step(step: int, action: Callable[[Any], Any]) -> Callable[..., Any]:
    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        if index == step:
            action(pipe)
        return tensors

    return callback


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_pipeline_in_a_callback(family: str, step: int) -> None:
    pipe = pipeline(family)
    other = twin(pipe)
    plain = latents(other, family)
    expected = spliced(pipe, lambda **more: request(family, **more), 2, None)
    delayed = spliced(pipe, lambda **more: request(family, **more), 1, 3)
    lazyneg.apply(pipe, 2)
    found: list[torch.Tensor] = []
    callback = in_step(step, lambda _: found.append(latents(other, family)))
    assert torch.equal(latents(pipe, family, callback_on_step_end=callback), expected)
    assert torch.equal(found[0], plain)
    lazyneg.apply(other, 1, stop_step=3)
    assert torch.equal(latents(pipe, family, callback_on_step_end=callback), expected)
    assert torch.equal(found[1], delayed)


def uses_the_unet(pipe: Any) -> None:
    width = pipe.unet.config.cross_attention_dim
    pipe.unet(torch.ones(1, 4, 8, 8), 3, encoder_hidden_states=torch.zeros(1, 77, width))


def uses_the_vae(pipe: Any) -> None:
    pipe.vae(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    pipe.vae.decode(torch.zeros(1, 4, 4, 4))


def uses_the_text_encoder(pipe: Any) -> None:
    pipe.encode_prompt("another", "cpu", 1, True, negative_prompt="negative")
    pipe.text_encoder(torch.zeros(1, 77, dtype=torch.long))


@pytest.mark.parametrize("action", [uses_the_unet, uses_the_vae, uses_the_text_encoder])
@pytest.mark.parametrize("critical_step", [1, 4])
def test_models_in_a_callback(critical_step: int, action: Callable[[Any], None]) -> None:
    pipe = pipeline("sd")
    lazyneg.apply(pipe, critical_step)
    expected = sd_loop(pipe, critical_step, **request("sd"))
    for step in (0, 2):
        made = latents(pipe, "sd", callback_on_step_end=in_step(step, action))
        assert torch.equal(made, expected)


def test_the_callback_gets_the_pipeline_itself() -> None:
    pipe = pipeline("sd")
    lazyneg.apply(pipe, 2)
    found: list[bool] = []
    latents(pipe, "sd", callback_on_step_end=in_step(1, lambda got: found.append(got is pipe)))
    assert found == [True]


@pytest.mark.parametrize("critical_step", [2, 5])
def test_the_same_pipeline_re_entered(critical_step: int) -> None:
    pipe = lazyneg.apply(pipeline("sd"), critical_step)
    expected = sd_loop(pipe, critical_step, **request("sd"))
    found: list[torch.Tensor] = []
    callback = in_step(1, lambda got: found.append(latents(got, "sd")))
    assert torch.equal(latents(pipe, "sd", callback_on_step_end=callback), expected)
    assert torch.equal(found[0], expected)


@pytest.mark.filterwarnings("ignore")
def test_legacy_callback() -> None:
    pipe = pipeline("sd")
    other = twin(pipe)
    plain = latents(other, "sd")
    lazyneg.apply(pipe, 3)
    found: list[torch.Tensor] = []

    def callback(step: int, timestep: Any, tensors: torch.Tensor) -> None:
        uses_the_unet(pipe)
        if step == 1:
            found.append(latents(other, "sd"))

    made = latents(pipe, "sd", callback=callback, callback_steps=1)
    assert torch.equal(made, sd_loop(pipe, 3, **request("sd")))
    assert torch.equal(found[0], plain)


class Nosy(PipelineCallback):
    """One of diffusers' own kind, with an attribute of the class that the pipeline asks for."""

    tensor_inputs = ["latents", "prompt_embeds"]  # noqa: RUF012

    def callback_fn(self, pipe: Any, step: int, timestep: Any, tensors: Any) -> Any:
        uses_the_unet(pipe)
        self.seen = {*getattr(self, "seen", ()), *tensors}
        return tensors


@pytest.mark.parametrize("several", [False, True])
def test_callback_objects(several: bool) -> None:
    pipe = lazyneg.apply(pipeline("sd"), 3)
    callback = Nosy(cutoff_step_ratio=None, cutoff_step_index=1)
    made = latents(
        pipe,
        "sd",
        callback_on_step_end=MultiPipelineCallbacks([callback]) if several else callback,
    )
    assert torch.equal(made, sd_loop(pipe, 3, **request("sd")))
    assert callback.seen == {"latents", "prompt_embeds"}


class Painting(DDIMScheduler):
    """A scheduler that calls a pipeline with the same models."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        if len(self.found) < 2:
            self.found.append(latents(self.other, "sd"))
        return super().step(*args, **kwargs)


class PaintingProcessor(AttnProcessor2_0):
    """An attention processor that does."""

    other: Any
    found: list[torch.Tensor]
    painting = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.painting and not self.found:
            self.painting = True
            self.found.append(latents(self.other, "sd"))
            self.painting = False
        return super().__call__(*args, **kwargs)


def test_another_pipeline_in_the_scheduler() -> None:
    pipe = pipeline("sd")
    other = twin(pipe)
    plain = latents(other, "sd")
    pipe.scheduler = Painting.from_config(pipe.scheduler.config)
    pipe.scheduler.other, pipe.scheduler.found = other, []
    expected = sd_loop(pipe, 3, **request("sd"))
    pipe.scheduler.found = []
    lazyneg.apply(pipe, 3)
    assert torch.equal(latents(pipe, "sd"), expected)
    assert [torch.equal(made, plain) for made in pipe.scheduler.found] == [True, True]


def test_another_pipeline_in_an_attention_processor() -> None:
    pipe = pipeline("sd")
    other = twin(pipe)
    plain = latents(other, "sd")
    expected = sd_loop(pipe, 3, **request("sd"))
    processor = PaintingProcessor()
    processor.other, processor.found = other, []
    pipe.unet.set_attn_processor(processor)
    lazyneg.apply(pipe, 3)
    assert torch.equal(latents(pipe, "sd"), expected)
    assert [torch.equal(made, plain) for made in processor.found] == [True]


def test_applied_and_removed_in_its_own_call() -> None:
    pipe = pipeline("sd")
    plain = latents(pipe, "sd")
    lazyneg.apply(pipe, 3)
    made = latents(pipe, "sd", callback_on_step_end=in_step(0, lazyneg.remove))
    assert torch.equal(made, sd_loop(pipe, 3, **request("sd")))
    assert torch.equal(latents(pipe, "sd"), plain)
    made = latents(pipe, "sd", callback_on_step_end=in_step(0, lambda got: lazyneg.apply(got, 3)))
    assert torch.equal(made, plain)
    assert torch.equal(latents(pipe, "sd"), sd_loop(pipe, 3, **request("sd")))


def state(pipe: Any) -> dict[str, Any]:
    """All that is set on a pipeline, its models and its scheduler, or hangs on them."""
    found: dict[str, Any] = {"type": type(pipe), "pipe": set(vars(pipe))}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            for below, module in part.named_modules():
                attributes = {
                    key: dict(value) if isinstance(value, dict) else id(value)
                    for key, value in vars(module).items()
                    if key not in ("_parameters", "_buffers", "training")
                }
                found[f"{name}.{below}"] = attributes
        elif part is not None:
            found[name] = type(part), set(vars(part))
    return found


def interrupting(pipe: Any, place: str) -> Callable[[], None]:
    """Makes the pipeline fail in a place; returns what undoes it."""
    owner, _, number = place.partition(" ")
    module = getattr(pipe, owner)
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == int(number):
            raise KeyboardInterrupt

    hook = module.register_forward_pre_hook(fail)
    return lambda: hook.remove()


@pytest.mark.parametrize(
    "place",
    ["text_encoder 1", "text_encoder 2", "text_encoder 3"]
    + [f"unet {number}" for number in range(1, 6)],
)
def test_an_interrupt_anywhere_leaves_nothing(place: str) -> None:
    pipe = pipeline("sd")
    plain = latents(pipe, "sd")
    before = state(pipe)
    lazyneg.apply(pipe, 3)
    undo = interrupting(pipe, place)
    with pytest.raises(KeyboardInterrupt):
        latents(pipe, "sd")
    undo()
    lazyneg.remove(pipe)
    assert state(pipe) == before
    assert torch.equal(latents(pipe, "sd"), plain)


@pytest.mark.parametrize("step", range(5))
def test_an_interrupt_in_a_callback_leaves_nothing(step: int) -> None:
    pipe = pipeline("sd")
    plain = latents(pipe, "sd")
    before = state(pipe)

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    with lazyneg.lazy_negative(pipe, 3), pytest.raises(KeyboardInterrupt):
        latents(pipe, "sd", callback_on_step_end=in_step(step, interrupt))
    assert state(pipe) == before
    assert torch.equal(latents(pipe, "sd"), plain)


def test_an_interrupt_at_any_line_leaves_nothing() -> None:
    """Where Ctrl-C is pressed cannot be chosen: here it comes in each function of the package."""
    pipe = pipeline("sd")
    plain = latents(pipe, "sd")
    latents(lazyneg.apply(pipe, 3), "sd")
    lazyneg.remove(pipe)
    before = state(pipe)
    count = 0

    def tracing(at: int) -> Callable[..., Any]:
        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            if event == "call" and "lazyneg/diffusers" in frame.f_code.co_filename:
                count += 1
                if count == at:
                    raise KeyboardInterrupt

        return trace

    lazyneg.apply(pipe, 3)
    sys.settrace(tracing(-1))
    latents(pipe, "sd")
    sys.settrace(None)
    events, tried = count, 0
    for at in range(1, events, max(1, events // 60)):
        count = 0
        lazyneg.apply(pipe, 3)
        sys.settrace(tracing(at))
        try:
            with pytest.raises(KeyboardInterrupt):
                latents(pipe, "sd")
        finally:
            sys.settrace(None)
        lazyneg.remove(pipe)
        assert state(pipe) == before
        tried += 1
    assert tried > 50
    assert torch.equal(latents(pipe, "sd"), plain)


def embedded(pipe: Any) -> dict[str, Any]:
    """Embeddings in place of texts: the tokenizer is not for several threads at once."""
    with torch.no_grad():
        positive, negative = pipe.encode_prompt("girl", "cpu", 1, True, negative_prompt="ugly")
    return {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": positive,
        "negative_prompt_embeds": negative,
    }


@pytest.mark.parametrize("head_start", [None, 0, 1, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_one_pipeline_in_two_threads(head_start: int | None, fails: bool) -> None:
    """DDIM's scheduler keeps nothing from step to step, so that the plain pipeline can do it."""
    pipe = pipeline("sd")
    arguments = embedded(pipe)
    with torch.no_grad():
        early = pipe.encode_prompt("", "cpu", 1, False)[0]
    plain = latents(pipe, "sd", **arguments)
    expected = sd_loop(pipe, 3, **request("sd", **arguments))
    before = state(pipe)
    lazyneg.apply(pipe, 3, early_prompt_embeds=early)
    found: dict[int, torch.Tensor] = {}
    started = threading.Event()

    def first(*values: Any) -> Any:
        if values[1] == head_start:
            started.set()
            if fails:
                raise ZeroDivisionError
        return values[-1]

    def work(number: int, **more: Any) -> None:
        try:
            found[number] = latents(pipe, "sd", **arguments, **more)
        except ZeroDivisionError:
            found[number] = expected

    if head_start is None:
        started.set()
    threads = [
        threading.Thread(target=work, args=(0,), kwargs={"callback_on_step_end": first}),
        threading.Thread(target=work, args=(1,)),
    ]
    threads[0].start()
    started.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert {number: torch.equal(made, expected) for number, made in found.items()} == {
        0: True,
        1: True,
    }
    lazyneg.remove(pipe)
    assert state(pipe) == before
    assert torch.equal(latents(pipe, "sd", **arguments), plain)


def test_a_copy_for_each_request() -> None:
    """As servers do it: the same models, a scheduler for each, copies made while others run."""
    pipe = lazyneg.apply(pipeline("sdxl"), 2)
    expected = spliced(lazyneg.remove(copy.copy(pipe)), lambda **m: request("sdxl", **m), 2, None)
    found: list[torch.Tensor] = []

    def another(_: Any) -> None:
        mine = copy.copy(pipe)
        mine.scheduler = copy.deepcopy(pipe.scheduler)
        found.append(latents(mine, "sdxl"))

    local = copy.copy(pipe)
    local.scheduler = copy.deepcopy(pipe.scheduler)
    made = latents(local, "sdxl", callback_on_step_end=in_step(1, another))
    assert torch.equal(made, expected)
    assert torch.equal(found[0], expected)
