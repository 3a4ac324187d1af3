"""Caches of diffusers keep a state from step to step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    PyramidAttentionBroadcastConfig,
)

import lazyneg
from tests.diffusers.tiny import pipeline, request


def config(kind: str, pipe: Any) -> Any:
    def timestep() -> int:
        return int(pipe.scheduler.timesteps[pipe.scheduler.step_index or 0])

    if kind == "first block":
        return FirstBlockCacheConfig(threshold=0.5)
    if kind == "pyramid":
        return PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            current_timestep_callback=timestep,
        )
    return FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 901),
        unconditional_batch_skip_range=2,
        unconditional_batch_timestep_skip_range=(-1, 901),
        attention_weight_callback=lambda _: 0.5,
        tensor_format="BCHW",
        is_guidance_distilled=True,
        current_timestep_callback=timestep,
    )


def swapped(pipe: Any, critical_step: int) -> torch.Tensor:
    """A plain call whose negative embeddings are exchanged at the denoiser's door."""
    with torch.no_grad():
        embeds = [pipe.encode_prompt(text, text, max_sequence_length=32) for text in (NEGATIVE, "")]
    steps = []

    def swap(_: Any, args: Any, kwargs: Any) -> Any:
        if not torch.equal(kwargs["encoder_hidden_states"], embeds[0][0]):
            return None
        steps.append(1)
        if len(steps) <= critical_step:
            kwargs = {**kwargs, "encoder_hidden_states": embeds[1][0]}
            kwargs["pooled_projections"] = embeds[1][1]
        return args, kwargs

    hook = pipe.transformer.register_forward_pre_hook(swap, with_kwargs=True)
    made = pipe(**request("flux"))[0]
    hook.remove()
    assert len(steps) == 5
    return torch.as_tensor(made)


NEGATIVE = request("flux")["negative_prompt"]


@pytest.mark.parametrize("kind", ["first block", "pyramid", "faster"])
def test_cache(kind: str) -> None:
    pipe = pipeline("flux")
    uncached = pipe(**request("flux"))[0]
    pipe.transformer.enable_cache(config(kind, pipe))
    plain = pipe(**request("flux"))[0]
    empty = pipe(**request("flux", negative_prompt=""))[0]
    assert not torch.equal(plain, uncached)
    delayed = swapped(pipe, 2)
    lazyneg.apply(pipe, 2)
    assert torch.equal(pipe(**request("flux"))[0], delayed)
    lazyneg.apply(pipe, 5)
    assert torch.equal(pipe(**request("flux"))[0], empty)
    lazyneg.remove(pipe)
    assert torch.equal(pipe(**request("flux"))[0], plain)
