"""Arguments of a call as named leaves, so that two calls can be compared and mixed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch

Path = tuple[Any, ...]
"""Keys and indices that lead from the arguments of a call to one leaf."""

PLAIN = (bool, int, float, str, bytes, type(None))
"""Kinds of leaves that cannot be changed and have all their meaning in their value."""


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Walks nested dicts, lists and tuples; all else is a leaf."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def at(value: Any, path: Path) -> Any:
    """The leaf at a path, ``None`` where there is none."""
    try:
        for key in path:
            value = value[key]
    except (LookupError, TypeError):
        return None
    return value


def replaced(value: Any, news: Mapping[Path, Any]) -> Any:
    """``value`` with the leaves at the paths of ``news`` exchanged; ``value`` itself is kept."""
    if () in news:
        return news[()]
    below: dict[Any, dict[Path, Any]] = {}
    for path, new in news.items():
        below.setdefault(path[0], {})[path[1:]] = new
    if isinstance(value, dict):
        result = copy.copy(value)
        for key, inner in below.items():
            result[key] = replaced(value[key], inner)
        return result
    items = [replaced(item, below[i]) if i in below else item for i, item in enumerate(value)]
    if hasattr(value, "_fields"):
        return type(value)(*items)
    return type(value)(items)


def plain(leaf: Any) -> bool:
    """Whether a leaf is of a kind that cannot be changed and has all its meaning in its value."""
    return isinstance(leaf, PLAIN)


def same(one: Any, other: Any) -> bool:
    """Whether two leaves are equal. Objects that cannot tell, such as a cache, are if alike."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return (
            one.shape == other.shape
            and one.dtype == other.dtype
            and one.device == other.device
            and torch.equal(one, other)
        )
    return bool(one == other) if plain(one) else True
