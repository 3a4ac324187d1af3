"""The rows of a denoiser's batch: which have the negative prompt, and how to run only those."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path, leaves, replaced, same

Arguments = tuple[Sequence[Any], dict[str, Any]]
"""Positional and named ones of a call."""

Denoising = Callable[[torch.nn.Module, Sequence[Any], dict[str, Any]], Any]
"""Calls a model with arguments."""


@dataclass
class Batch:
    """The rows of one denoiser call.

    Attributes:
        count: How many there are.
        differing: Those that have the negative prompt.
        partners: For each of those the row that has the prompt for the same picture; empty where
            that cannot be told, or is in another call.
        layouts: Of arguments that have several rows for each one: whether they lie together.
        listed: Whether it is lists that have an item for each row.
    """

    count: int
    differing: list[int]
    partners: dict[int, int]
    layouts: dict[Path, bool]
    listed: bool


@dataclass
class Extra:
    """A call with the negative prompt beside the pipeline's own."""

    module: torch.nn.Module
    arguments: Arguments
    givens: Mapping[Path, Any]
    differing: Sequence[Path]
    batch: Batch
    have_rows: Mapping[Path, bool]
    """Which arguments have a row for each of the batch, where that is known."""

    def made(self, rows: list[int], denoising: Denoising) -> Mapping[Path, Tensor]:
        """The tensors of the output for some rows."""
        batch = self.batch
        news = self._sliced(rows) if len(rows) < batch.count else None
        args, kwargs = self.arguments if news is None else replaced(self.arguments, news)
        tensors = tensors_of(denoising(self.module, args, kwargs), batch.listed)
        if news is not None:
            return tensors
        return {path: tensor[rows] for path, tensor in tensors.items()}

    def _sliced(self, rows: list[int]) -> dict[Path, Any] | None:
        """Arguments with only these rows, ``None`` if it cannot be told which ones have rows."""
        batch = self.batch
        news: dict[Path, Any] = {}
        if not batch.partners:
            return None
        sizes = list_sizes(self.givens)
        for path, leaf in self.givens.items():
            known, differs = self.have_rows.get(path), path in self.differing
            if batch.listed and sizes[path[:-1]] == batch.count:
                news.setdefault(path[:-1], []).extend([leaf] if path[-1] in rows else [])
                continue
            if known is False and not differs:
                continue
            if not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) % batch.count:
                # A list may have an item for each row.
                if known or differs or sizes[path[:-1]] == batch.count:
                    return None
                continue
            if path in batch.layouts:
                together, each = batch.layouts[path], len(leaf) // batch.count
                shape = (batch.count, each) if together else (each, batch.count)
                parts = leaf.reshape(*shape, *leaf.shape[1:])
                news[path] = (parts[rows] if together else parts[:, rows]).flatten(0, 1)
            elif len(leaf) == batch.count and (known or differs or self._paired(leaf)):
                news[path] = leaf[rows]
            else:
                return None
        return news

    def _paired(self, leaf: Tensor) -> bool:
        """Whether an argument has the same for the negative prompt as for the prompt.

        So the latents have, and what else is given for each row. What has as many rows by chance
        has not.
        """
        partners = self.batch.partners
        return torch.equal(leaf[[*partners]], leaf[[*partners.values()]])


def differing_rows(
    count: int, pairs: Mapping[Path, tuple[Any, Any]]
) -> tuple[list[int], dict[Path, bool]]:
    """Rows of a batch in which arguments differ, and the layouts as in :class:`Batch`."""
    found: set[int] = set()
    layouts: dict[Path, bool] = {}
    for path, (blank, given) in pairs.items():
        marks = _marks(blank, given)
        if not marks or len(marks) % count:
            continue
        each = len(marks) // count
        together = [marks[row * each : (row + 1) * each] for row in range(count)]
        apart = [marks[row::count] for row in range(count)]
        fitting = [rows for rows in (together, apart) if all(any(row) == all(row) for row in rows)]
        if each > 1:
            if len(fitting) == 1:
                layouts[path] = fitting[0] is together
            elif not all(marks):
                continue
        found.update(row for row, marked in enumerate(fitting[0]) if any(marked))
    return sorted(found), layouts


def _marks(blank: Any, given: Any) -> list[bool] | None:
    """In which of their rows two tensors differ, as far as both go; ``None`` if in none alike."""
    if not isinstance(blank, Tensor) or not isinstance(given, Tensor):
        return None
    if blank.ndim != given.ndim or not blank.ndim or len(blank) != len(given):
        return None
    common = tuple(slice(min(sizes)) for sizes in zip(blank.shape, given.shape))
    differ: list[bool] = (blank[common] != given[common]).flatten(1).any(1).tolist()
    return differ


def partners_of(
    count: int, sample: Any, differing: list[int], blanks: Sequence[Any]
) -> dict[int, int]:
    """As in :class:`Batch`: a half of the batch has the negative prompt, the other the prompt."""
    if not isinstance(sample, Tensor) or not sample.ndim or len(sample) != count:
        return {}
    tensors = [
        blank for blank in blanks if isinstance(blank, Tensor) and blank.shape[:1] == (count,)
    ]
    # In a batch of pictures some may have an empty negative prompt, which does not differ.
    empty = [
        row
        for row in range(count)
        if all(torch.equal(tensor[row], tensor[differing[0]]) for tensor in tensors)
    ]
    for without in (empty, differing):
        prompted = [row for row in range(count) if row not in without]
        if len(prompted) != len(without) or not set(differing) <= set(without):
            continue
        if torch.equal(sample[without], sample[prompted]):
            partners = dict(zip(without, prompted, strict=True))
            return {row: partners[row] for row in differing}
    return {}


def count_of(module: torch.nn.Module, tensors: Mapping[Path, Tensor]) -> int:
    """How many rows an output has."""
    counts = {tensor.shape[:1] for tensor in tensors.values()}
    if len(counts) != 1 or () in counts:
        raise DelayError(
            f"{type(module).__name__} gives no tensors that all have the same number of rows: "
            "area and adaptive cannot tell which are the negative prompt's"
        )
    return counts.pop()[0]


def sample_of(module: torch.nn.Module, givens: Mapping[Path, Any]) -> tuple[Any, bool]:
    """The latents, and whether there is a list of them."""
    path = sample_path(module, givens)
    if path in givens:
        return givens[path], False
    items = [leaf for where, leaf in givens.items() if where[:-1] == path]
    stacked = _stacked(items)
    return stacked, stacked is not None


def sample_path(module: torch.nn.Module, givens: Mapping[Path, Any]) -> Path:
    """Where the latents are: models take them first."""
    own = getattr(module, "_orig_mod", module)
    name = next(iter(inspect.signature(own.forward).parameters), None)
    return (0, 0) if any(path[:2] == (0, 0) for path in givens) else (1, name)


def _stacked(items: Sequence[Any]) -> Tensor | None:
    """One tensor of several of the same shape."""
    if not items or not all(isinstance(item, Tensor) for item in items):
        return None
    return torch.stack([*items]) if len({item.shape for item in items}) == 1 else None


def tensors_of(output: Any, listed: bool) -> dict[Path, Tensor]:
    """The tensors of an output; as one if it is a list with one for each row."""
    tensors = {path: leaf for path, leaf in leaves(output) if isinstance(leaf, Tensor)}
    stacked = _stacked([*tensors.values()]) if listed else None
    return tensors if stacked is None else {(): stacked}


def list_sizes(givens: Mapping[Path, Any]) -> Counter[Path]:
    """How many items lists among arguments have."""
    return Counter(path[:-1] for path in givens if len(path) > 2 and isinstance(path[-1], int))


def may_mislead(count: int, givens: Mapping[Path, Any]) -> bool:
    """Whether arguments have numbers that may or may not be those of a batch's rows."""
    return count > 1 and (
        count in list_sizes(givens).values()
        or any(
            isinstance(leaf, Tensor)
            and leaf.ndim
            and not len(leaf) % count
            and not (len(leaf) == count and same(*leaf.chunk(2)))
            for leaf in givens.values()
        )
    )
