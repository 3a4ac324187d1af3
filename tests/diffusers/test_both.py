"""What a pipeline does with a tensor is done with both of its forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lazyneg.diffusers.both import Both, form
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import leaves, same


def random(seed: int) -> Tensor:
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed))


def both(usable: bool = True) -> Any:
    return Both.of(random(1), random(2), lambda: usable)


def in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x += 1
    x.mul_(2)
    x[0] = 3
    return x


@pytest.mark.parametrize(
    "work",
    [
        lambda x: 0.5 * x + random(3),
        lambda x: torch.cat([torch.zeros_like(x), x]),
        lambda x: x.chunk(2, dim=1),
        lambda x: [part * 2 for part in x.unbind()],
        lambda x: torch.stack([x, random(3)]).to(torch.float16),
        lambda x: x.reshape(x.shape[0], -1)[:, 1:],
        lambda x: torch.nn.functional.interpolate(x, scale_factor=2.0),
        lambda x: torch.where(random(4) > 0, x, random(3)),
        lambda x: (x.shape, x.dtype, x.ndim, x.sum(-1)),
        lambda x: {"one": x.max(dim=1), "other": ~x.isnan()},
        in_place,
    ],
)
def test_work(work: Callable[[Any], Any]) -> None:
    made = work(both())
    for which, seed in (("blank", 1), ("given", 2)):
        found, expected = dict(leaves(form(made, which))), dict(leaves(work(random(seed))))
        assert found.keys() == expected.keys()
        assert all(same(found[path], leaf) for path, leaf in expected.items())
    assert form(random(1), "blank").equal(random(1))


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda x: random(3).add_(x), "writes what one model gives"),
        (lambda x: random(3).__setitem__(0, x[0]), "writes what one model gives"),
        (lambda x: torch.add(x, 1, out=random(3)), "writes what one model gives"),
        (lambda x: random(3).__iadd__(x), "writes what one model gives"),
        (lambda x: x.numpy(), "out of PyTorch"),
        (lambda x: x.sum().item(), "out of PyTorch"),
        (lambda x: bool((x == random(1)).all()), "out of PyTorch"),
        (lambda x: x.tolist(), "out of PyTorch"),
    ],
)
def test_what_cannot_be_followed_is_refused(work: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(DelayError, match=message):
        work(both())


def test_it_is_of_its_step() -> None:
    with pytest.raises(DelayError, match="both into the picture and into another"):
        both(usable=False) + 1
