from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lazyneg.core.guidance import GAIN, SPARED, STRONGEST, Guidance, contained, strongest

LAYOUTS = [((4, 16, 12), 0), ((3, 5, 8, 8), 0), ((64, 16), 1), ((5, 7, 9, 4), 3)]
"""Shapes of one picture's outputs, and which dimension is the channels'."""

layouts = st.sampled_from(LAYOUTS)
areas = st.integers(1, 100)
seeds = st.integers(0, 2**16)


def outputs(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three outputs by lot, as float32."""
    lot = torch.Generator().manual_seed(seed)
    cond, empty, negative = torch.randn((3, *shape), generator=lot)
    return cond, empty, negative


def seen(empty: Tensor, negative: Tensor, share: float) -> Tensor:
    """An output for the prompt on the line through the two others."""
    return empty + share * (negative - empty)


@given(layout=layouts, area=st.just(100) | areas, seed=seeds)
def test_never_acting_gives_the_empty_output_itself(
    layout: tuple[tuple[int, ...], int], area: int, seed: int
) -> None:
    shape, channels = layout
    guidance = Guidance(area, adaptive=True)
    for call in range(3):
        _, empty, negative = outputs(shape, seed + call)
        cond = empty - (negative - empty) / 10
        assert guidance.uncond(cond, empty, negative, channels) is empty
        assert not guidance.acted


@given(layout=layouts, adaptive=st.booleans(), seed=seeds)
def test_acting_everywhere_gives_the_negative_output_itself(
    layout: tuple[tuple[int, ...], int], adaptive: bool, seed: int
) -> None:
    shape, channels = layout
    guidance = Guidance(100, adaptive)
    for call in range(3):
        _, empty, negative = outputs(shape, seed + call)
        cond = seen(empty, negative, 0.9)
        assert guidance.uncond(cond, empty, negative, channels) is negative
        assert guidance.acted


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("area", [1, 10, 100])
@pytest.mark.parametrize(("shape", "channels"), LAYOUTS)
def test_a_negative_prompt_that_changes_nothing_does_not_act(
    shape: tuple[int, ...], channels: int, area: int, adaptive: bool
) -> None:
    cond, empty, _ = outputs(shape, 0)
    guidance = Guidance(area, adaptive)
    for prompt in (cond, empty):
        assert guidance.uncond(prompt, empty, empty.clone(), channels) is empty
        assert not guidance.acted


@given(layout=layouts, area=st.integers(1, 99), seed=seeds)
def test_a_mask_alone_is_that_share_of_the_positions_with_the_negative_output(
    layout: tuple[tuple[int, ...], int], area: int, seed: int
) -> None:
    shape, channels = layout
    cond, empty, negative = outputs(shape, seed)
    uncond = Guidance(area, adaptive=False).uncond(cond, empty, negative, channels)
    chosen = (uncond != empty).any(channels)
    assert chosen.sum() == math.ceil(chosen.numel() * area / 100)
    there = chosen.unsqueeze(channels).expand(shape)
    assert torch.equal(uncond[there], (empty + (negative - empty))[there])
    assert torch.equal(uncond[~there], empty[~there])


@pytest.mark.parametrize(("shape", "channels"), LAYOUTS)
def test_a_mask_lies_where_the_negative_prompt_changes_most(
    shape: tuple[int, ...], channels: int
) -> None:
    push = torch.full(shape, 0.01)
    # A block of two positions in every direction but the channels'.
    block = tuple(slice(None) if dim == channels else slice(2, 4) for dim in range(len(shape)))
    push[block] = 1.0
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[block] = True
    positions = inside.any(channels)
    area = math.floor(100 * int(positions.sum()) / positions.numel())
    chosen = strongest(push, max(area, 1), channels)
    assert chosen.shape == tuple(1 if dim == channels else n for dim, n in enumerate(shape))
    assert chosen.squeeze(channels)[positions].any()
    assert not chosen.squeeze(channels)[~positions].any()


@pytest.mark.parametrize("area", [10, 100])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_push(area: int, adaptive: bool) -> None:
    _, empty, negative = outputs((4, 16, 16), 0)
    guidance = Guidance(area, adaptive)
    shares = [0.1, 0.06, 0.3, 2.0, 1.0, -1.0, 0.2]
    for call, share in enumerate(shares, 1):
        evidence = sum(shares[:call]) / call
        most = STRONGEST if area < 100 else 1
        push = min(GAIN * (evidence - SPARED), most) if adaptive else 1
        uncond = guidance.uncond(seen(empty, negative, share), empty, negative, 0)
        assert guidance.acted
        assert not guidance.over
        there = uncond != empty
        pushed = (uncond - empty)[there] / (negative - empty)[there]
        assert pushed.median().item() == pytest.approx(push, rel=1e-3)


@pytest.mark.parametrize("area", [10, 100])
@pytest.mark.parametrize(
    ("shares", "acted"),
    [
        ([SPARED - 0.01], 0),
        ([-2.0], 0),
        ([0.0], 0),
        # The mean of the three is below, that of the first two is not.
        ([SPARED + 0.02, SPARED - 0.01, SPARED - 0.03], 2),
        ([0.5, -0.5], 1),
    ],
)
def test_it_is_over_with_the_evidence(area: int, shares: list[float], acted: int) -> None:
    _, empty, negative = outputs((4, 8, 8), 0)
    guidance, always = Guidance(area, adaptive=True), Guidance(area, adaptive=False)
    for call, share in enumerate(shares):
        cond = seen(empty, negative, share)
        uncond = guidance.uncond(cond, empty, negative, 0)
        assert guidance.acted is (call < acted)
        assert guidance.over is (call >= acted)
        assert (uncond is empty) is (call >= acted)
        always.uncond(cond, empty, negative, 0)
        assert always.acted
        assert not always.over
    # For good: also where the evidence would rise again.
    for _ in range(3):
        assert guidance.uncond(negative, empty, negative, 0) is empty
        assert not guidance.acted


def test_only_the_part_where_it_would_act_is_looked_at() -> None:
    """The rest of the picture says nothing of the object."""
    empty = torch.zeros(4, 8, 8)
    negative = torch.full((4, 8, 8), 0.1)
    negative[:, 2:4, 2:4] = 1.0
    inside = torch.zeros_like(empty)
    inside[:, 2:4, 2:4] = 1.0
    for cond, acts in ((inside, True), (negative - inside, False), (1 - 3 * inside, False)):
        guidance = Guidance(5, adaptive=True)
        guidance.uncond(cond, empty, negative, 0)
        assert guidance.acted is acts


@pytest.mark.parametrize("area", [10, 100])
def test_not_a_number_never_acts(area: int) -> None:
    _, empty, negative = outputs((4, 8, 8), 0)
    guidance = Guidance(area, adaptive=True)
    assert guidance.uncond(empty * math.nan, empty, negative, 0) is empty
    assert guidance.over


@given(layout=layouts, area=areas, adaptive=st.booleans(), seed=seeds, power=st.integers(-9, 9))
def test_the_scale_of_a_calls_outputs_does_not_matter(
    layout: tuple[tuple[int, ...], int], area: int, adaptive: bool, seed: int, power: int
) -> None:
    shape, channels = layout
    plain, scaled = Guidance(area, adaptive), Guidance(area, adaptive)
    for call in range(3):
        cond, empty, negative = outputs(shape, seed + call)
        # Powers of two, of either sign and others in every call, are free of rounding.
        factor = (-1) ** call * 2.0 ** (power * (call - 1))
        expected = plain.uncond(cond, empty, negative, channels)
        found = scaled.uncond(cond * factor, empty * factor, negative * factor, channels)
        assert scaled.acted == plain.acted
        assert torch.equal(found, expected * factor)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("area", [10, 100])
def test_pictures_are_independent_and_inputs_kept(area: int, adaptive: bool) -> None:
    runs = [[outputs((4, 8, 8), seed + 10 * call) for call in range(4)] for seed in range(3)]
    kept = [[[output.clone() for output in call] for call in run] for run in runs]
    alone = []
    for run in runs:
        guidance = Guidance(area, adaptive)
        alone.append([guidance.uncond(*call, 0) for call in run])
    together = [Guidance(area, adaptive) for _ in runs]
    for call in range(4):
        for picture, guidance in enumerate(together):
            found = guidance.uncond(*runs[picture][call], 0)
            assert torch.equal(found, alone[picture][call])
    for run, before in zip(runs, kept, strict=True):
        for now, unchanged in zip(run, before, strict=True):
            assert all(torch.equal(*pair) for pair in zip(now, unchanged, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("area", [10, 100])
@pytest.mark.parametrize(("shape", "channels"), LAYOUTS)
def test_half_precision_is_computed_in_single_precision_and_given_back(
    shape: tuple[int, ...], channels: int, area: int, dtype: torch.dtype
) -> None:
    cond, empty, negative = (output.to(dtype) for output in outputs(shape, 0))
    cond = seen(empty, negative, 0.7)
    found = Guidance(area, True).uncond(cond, empty, negative, channels)
    single = Guidance(area, True).uncond(cond.float(), empty.float(), negative.float(), channels)
    assert found.dtype == dtype
    assert torch.equal(found, single.to(dtype))


def test_large_half_precision_outputs_do_not_overflow() -> None:
    _, empty, negative = (3e4 * output.clamp(-1, 1) for output in outputs((4, 64, 64), 0))
    cond = seen(empty, negative, 0.7)
    uncond = Guidance(10, True).uncond(cond.half(), empty.half(), negative.half(), 0)
    assert (uncond != empty.half()).any()


@given(seed=seeds, share=st.floats(-2, 2))
def test_contained(seed: int, share: float) -> None:
    across, empty, negative = outputs((4, 6, 6), seed)
    d = negative - empty
    assert contained(share * d, d) == pytest.approx(share, abs=1e-5)
    # What is across changes nothing.
    across -= contained(across, d) * d
    assert contained(share * d + across, d) == pytest.approx(share, abs=1e-4)
    # CRG's difference of norms is positive above 1/2.
    if abs(share - 0.5) > 1e-3:
        a = share * d + across
        assert (a.norm() > (a - d).norm()) == (share > 0.5)
