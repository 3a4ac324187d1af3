"""Putting one unconditional conditioning in the place of another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

MARKER = 1024.0
"""Magnitude of the extra token that ControlNet's extension puts in front of a conditioning."""


def swap(uncond: Any, other: Any) -> Any:
    """The conditioning to use where ``uncond`` stood and ``other`` is wanted.

    Neither argument is written to.

    Args:
        uncond: The sampler's unconditional conditioning: a tensor ``[n, tokens, dim]``, a
            mapping of such tensors and of vectors ``[n, dim]``, or ``None`` where the sampler
            does without one.
        other: A conditioning of the same kind with ``n`` rows. It may have another number of
            tokens.

    Returns:
        ``other`` on the device and in the dtype of ``uncond``, behind the marker token of
        ``uncond`` if it has one; ``None`` if ``uncond`` is ``None``.

    Raises:
        ValueError: If kind, number of rows or width differ: these cannot stand for each other.
    """
    if uncond is None:
        return None
    if isinstance(uncond, Mapping):
        if not isinstance(other, Mapping) or uncond.keys() != other.keys():
            raise ValueError(f"cannot put {_kind(other)} in the place of {_kind(uncond)}")
        # A copy keeps the host's own class with its `.shape`.
        swapped = type(uncond)(uncond)  # type: ignore[call-arg]
        for key, value in uncond.items():
            swapped[key] = swap(value, other[key])  # type: ignore[index]
        return swapped
    if not isinstance(uncond, torch.Tensor):
        return other
    if (
        not isinstance(other, torch.Tensor)
        or uncond.ndim != other.ndim
        or uncond.shape[0] != other.shape[0]
        or uncond.shape[-1] != other.shape[-1]
    ):
        raise ValueError(f"cannot put {_kind(other)} in the place of {_kind(uncond)}")
    other = other.to(uncond)
    if _has_marker(uncond):
        other = torch.cat([uncond[:, :1], other], dim=1)
    return other


def swap_rows(uncond: Any, other: Any, rows: Sequence[bool], *, repeat: bool) -> Any:
    """As :func:`swap`, but only in the rows that ``rows`` names.

    Args:
        uncond: As in :func:`swap`.
        other: As in :func:`swap`.
        rows: For each row whether ``other`` takes its place.
        repeat: Whether rows of different length may be repeated as a whole up to a common one.
            In cross-attention that changes nothing: each token and its copies share its weight.

    Raises:
        ValueError: If they cannot stand side by side.
    """
    swapped = swap(uncond, other)
    if isinstance(uncond, Mapping):
        for key, value in uncond.items():
            swapped[key] = swap_rows(value, other[key], rows, repeat=repeat)
        return swapped
    if not isinstance(uncond, torch.Tensor):
        return swapped
    if len(rows) != uncond.shape[0]:
        raise ValueError(f"{len(rows)} prompts for {uncond.shape[0]} rows")
    marker = 1 if _has_marker(uncond) else 0
    bodies = [uncond[:, marker:], swapped[:, marker:]] if uncond.ndim == 3 else [uncond, swapped]
    if uncond.ndim == 3 and bodies[0].shape[1] != bodies[1].shape[1]:
        lengths = [body.shape[1] for body in bodies]
        if not repeat:
            raise ValueError(
                f"pictures of one batch with and without the negative prompt, of {lengths[0]} and "
                f"{lengths[1]} tokens: this model needs a batch for each"
            )
        bodies = [body.repeat(1, math.lcm(*lengths) // body.shape[1], 1) for body in bodies]
    chosen = torch.tensor(rows, device=uncond.device).view(-1, *[1] * (uncond.ndim - 1))
    mixed = torch.where(chosen, bodies[1], bodies[0])
    return torch.cat([uncond[:, :1], mixed], dim=1) if marker else mixed


def _has_marker(cond: torch.Tensor) -> bool:
    return cond.ndim == 3 and cond.shape[1] > 0 and bool((cond[:, 0].abs() == MARKER).all())


def _kind(cond: Any) -> str:
    if isinstance(cond, Mapping):
        return f"a mapping with {', '.join(map(str, cond))}"
    if isinstance(cond, torch.Tensor):
        return f"a tensor {list(cond.shape)}"
    return type(cond).__name__
