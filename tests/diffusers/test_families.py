"""Exactness on every family, against plain calls and against spliced ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

import lazyneg
from lazyneg.diffusers.leaves import leaves
from tests.diffusers.reference import spliced
from tests.diffusers.tiny import FAMILIES, pipeline, request

STEPS = 5


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def latents(pipe: Any, family: str, **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request(family, **more))[0])


def test_whole_range_is_exact(family: str) -> None:
    pipe = pipeline(family)
    plain = latents(pipe, family)
    empty = latents(pipe, family, negative_prompt="")
    between = spliced(pipe, lambda **more: request(family, **more), 2, None)
    stopped = spliced(pipe, lambda **more: request(family, **more), 1, 3)
    assert len({tensor.sum().item() for tensor in (plain, empty, between, stopped)}) == 4

    lazyneg.apply(pipe, 0)
    assert torch.equal(latents(pipe, family), plain)
    lazyneg.apply(pipe, STEPS)
    assert torch.equal(latents(pipe, family), empty)
    lazyneg.apply(pipe, 2)
    assert torch.equal(latents(pipe, family), between)
    lazyneg.apply(pipe, 1, stop_step=3)
    assert torch.equal(latents(pipe, family), stopped)
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe, family), plain)


def test_global_random_numbers_are_drawn_as_in_a_plain_call(family: str) -> None:
    pipe = pipeline(family)
    torch.manual_seed(3)
    plain = latents(pipe, family, generator=None, negative_prompt="")
    after = torch.get_rng_state()
    lazyneg.apply(pipe, STEPS)
    torch.manual_seed(3)
    assert torch.equal(latents(pipe, family, generator=None), plain)
    assert torch.equal(torch.get_rng_state(), after)


def test_no_denoiser_call_more_than_a_plain_one(family: str) -> None:
    pipe = pipeline(family)
    calls = []
    for name in ("controlnet", "unet", "transformer", "transformer_2"):
        if part := pipe.components.get(name):
            part.register_forward_hook(lambda *_: calls.append(1))
    latents(pipe, family)
    plain = len(calls)
    lazyneg.apply(pipe, 2)
    latents(pipe, family)
    assert len(calls) == 2 * plain


def test_no_text_or_picture_is_encoded_twice(family: str) -> None:
    pipe = pipeline(family)
    calls: list[str] = []

    def record(module: Any, args: Any, kwargs: Any) -> None:
        values = [
            leaf.tolist() if isinstance(leaf, torch.Tensor) else leaf
            for _, leaf in leaves((args, kwargs))
        ]
        calls.append(f"{id(module)} {values}")

    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and "encoder" in name:
            part.register_forward_pre_hook(record, with_kwargs=True)
    latents(pipe, family)
    plain = Counter(calls)
    assert plain
    calls.clear()
    lazyneg.apply(pipe, 2)
    latents(pipe, family)
    besides = Counter(calls) - plain
    # What is there of the empty prompt, and nothing else. Bria has zeros for it.
    assert bool(besides) != (family == "bria")
    assert sum(besides.values()) <= sum(plain.values())
    assert besides.keys().isdisjoint(plain)


def test_an_exception_midway_leaves_a_plain_pipeline(family: str) -> None:
    pipe = pipeline(family)
    plain = latents(pipe, family)
    denoiser = pipe.components.get("transformer") or pipe.unet
    attributes = {name: dict(vars(part)) for name, part in pipe.components.items() if part}
    lazyneg.apply(pipe, 2)
    calls = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    hook = denoiser.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        latents(pipe, family)
    hook.remove()
    lazyneg.remove(pipe)
    assert {name: vars(part).keys() for name, part in pipe.components.items() if part} == {
        name: names.keys() for name, names in attributes.items()
    }
    assert torch.equal(latents(pipe, family), plain)
