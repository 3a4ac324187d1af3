"""The processes that share work, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""The first to finish waits for the last."""


class OtherProcessError(Exception):
    """The work cannot be finished, as another process failed."""


@dataclass(frozen=True)
class Ranks:
    """One of several processes; by default the only one.

    Attributes:
        rank: Which one, from 0.
        count: How many there are.
        local: Which one on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def gpu(self) -> str | None:
        """The GPU of this process, if there is one."""
        if not torch.cuda.is_available():
            return None
        return f"cuda:{self.local % torch.cuda.device_count()}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The items that this process works on."""
        return items[self.rank :: self.count]

    def agree(self, value: T) -> T:
        """The value that the first process has; for all.

        Raises:
            OtherProcessError: If another process has ended.
        """
        if self.count == 1:
            return value
        box = [value]
        with _told():
            distributed.broadcast_object_list(box)
        return box[0]

    def gather(self, values: Sequence[T]) -> list[T]:
        """The values of all shares, in the order of the items that :meth:`share` split.

        Raises:
            OtherProcessError: If another process has ended.
        """
        if self.count == 1:
            return list(values)
        shares: list[Sequence[T]] = [()] * self.count
        with _told():
            distributed.all_gather_object(shares, values)
        total = sum(map(len, shares))
        return [shares[index % self.count][index // self.count] for index in range(total)]


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # What it says about sockets helps nobody.
        raise OtherProcessError("another process failed; see what it said") from error


@contextmanager
def joined() -> Iterator[Ranks]:
    """Meets the other processes, if a launcher started any."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    # Some environments tell the one without the other, and no launcher is behind it.
    if count == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    # Only small Python objects are exchanged, whatever the pictures are made on.
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), count, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()
