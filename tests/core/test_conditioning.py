from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lazyneg.core.conditioning import MARKER, swap, swap_rows

sizes = st.integers(1, 4)
tokens = st.sampled_from([1, 77, 154])


class ShapedDict(dict[str, torch.Tensor]):
    """Like the hosts' own: a dict with the shape of its cross-attention part."""

    @property
    def shape(self) -> torch.Size:
        return self["crossattn"].shape


def _dict(rows: int, tokens: int) -> ShapedDict:
    return ShapedDict({"crossattn": torch.randn(rows, tokens, 8), "vector": torch.randn(rows, 6)})


@given(rows=sizes, before=tokens, after=tokens)
def test_a_tensor_takes_the_place_of_a_tensor(rows: int, before: int, after: int) -> None:
    uncond, other = torch.randn(rows, before, 8), torch.randn(rows, after, 8)
    kept, given_ = uncond.clone(), other.clone()
    assert torch.equal(swap(uncond, other), other)
    assert torch.equal(uncond, kept)
    assert torch.equal(other, given_)


@given(rows=sizes, before=tokens, after=tokens, sign=st.sampled_from([1, -1]))
def test_the_marker_token_stays_in_front(rows: int, before: int, after: int, sign: int) -> None:
    marker = torch.full((rows, 1, 8), sign * MARKER)
    uncond, other = torch.randn(rows, before, 8), torch.randn(rows, after, 8)
    swapped = swap(torch.cat([marker, uncond], dim=1), other)
    assert torch.equal(swapped, torch.cat([marker, other], dim=1))


def test_the_marker_survives_half_precision() -> None:
    uncond = torch.cat([torch.full((1, 1, 8), -MARKER), torch.randn(1, 77, 8)], dim=1).half()
    swapped = swap(uncond, torch.randn(1, 77, 8))
    assert swapped.dtype == torch.float16
    assert swapped.shape == (1, 78, 8)
    assert (swapped[:, 0] == -MARKER).all()


@given(rows=sizes, before=tokens, after=tokens, marked=st.booleans())
def test_a_dict_keeps_its_class_and_shape(rows: int, before: int, after: int, marked: bool) -> None:
    uncond, other = _dict(rows, before), _dict(rows, after)
    if marked:
        marker = torch.full((rows, 1, 8), -MARKER)
        uncond["crossattn"] = torch.cat([marker, uncond["crossattn"]], dim=1)
    kept = {key: value.clone() for key, value in uncond.items()}
    swapped = swap(uncond, other)
    assert type(swapped) is ShapedDict
    assert swapped.shape == (rows, after + marked, 8)
    assert torch.equal(swapped["crossattn"][:, int(marked) :], other["crossattn"])
    assert torch.equal(swapped["vector"], other["vector"])
    assert all(torch.equal(uncond[key], value) for key, value in kept.items())


def test_no_unconditional_branch() -> None:
    assert swap(None, torch.randn(1, 77, 8)) is None


@pytest.mark.parametrize(
    "other",
    [
        torch.randn(1, 77, 8),
        torch.randn(2, 77, 9),
        torch.randn(2, 77),
        _dict(2, 77),
        None,
    ],
)
def test_what_does_not_fit_is_refused(other: Any) -> None:
    with pytest.raises(ValueError, match="in the place of a tensor"):
        swap(torch.randn(2, 77, 8), other)


def test_another_kind_of_dict_is_refused() -> None:
    with pytest.raises(ValueError, match="a mapping with crossattn, vector"):
        swap(_dict(1, 77), torch.randn(1, 77, 8))
    with pytest.raises(ValueError, match="a mapping with crossattn"):
        swap(_dict(1, 77), {"crossattn": torch.randn(1, 77, 8)})


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_rows_are_swapped_one_by_one(rows: list[bool], marked: bool, as_mapping: bool) -> None:
    n = len(rows)
    uncond, other = torch.randn(n, 7, 4), torch.randn(n, 7, 4)
    if marked:
        uncond[:, 0] = -MARKER
        other = other[:, 1:]
    expected = torch.stack([swap(uncond, other)[i] if rows[i] else uncond[i] for i in range(n)])
    if as_mapping:
        vectors = torch.randn(n, 3), torch.randn(n, 3)
        mixed = swap_rows(
            {"crossattn": uncond, "vector": vectors[0]},
            {"crossattn": other, "vector": vectors[1]},
            rows,
            repeat=False,
        )
        for i, row in enumerate(rows):
            assert torch.equal(mixed["vector"][i], vectors[row][i])
        mixed = mixed["crossattn"]
    else:
        mixed = swap_rows(uncond, other, rows, repeat=False)
    assert torch.equal(mixed, expected)


def test_rows_of_different_length_are_repeated_where_attention_does_not_notice() -> None:
    query = torch.randn(1, 5, 8)
    uncond, other = torch.randn(2, 6, 8), torch.randn(2, 4, 8)
    mixed = swap_rows(uncond, other, [True, False], repeat=True)

    def attended(context: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, context, context)

    assert mixed.shape == (2, 12, 8)
    assert torch.allclose(attended(mixed[:1]), attended(other[:1]), atol=1e-6)
    assert torch.allclose(attended(mixed[1:]), attended(uncond[1:]), atol=1e-6)
    with pytest.raises(ValueError, match="6 and 4 tokens"):
        swap_rows(uncond, other, [True, False], repeat=False)


def test_swapped_rows_have_to_be_named_each() -> None:
    with pytest.raises(ValueError, match="1 prompts for 2 rows"):
        swap_rows(torch.zeros(2, 7, 4), torch.zeros(2, 7, 4), [True], repeat=True)
    assert swap_rows(None, torch.zeros(2, 7, 4), [True, False], repeat=True) is None
