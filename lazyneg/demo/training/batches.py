"""Batches of freshly drawn scenes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyneg.demo import scenes
from lazyneg.demo.captions import caption
from lazyneg.demo.scenes import FACTS, Scene


def pictures(batch: list[Scene]) -> Tensor:
    """Draws scenes, as [scenes, 3, height, width] in -1 to 1."""
    drawn = np.stack([np.asarray(scenes.draw(scene)) for scene in batch])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


def sample(random: Random, size: int) -> list[Scene]:
    """Draws scenes by lot."""
    return [scenes.sample(random) for _ in range(size)]


def captions(batch: list[Scene], random: Random) -> tuple[list[str], Tensor]:
    """Describes scenes.

    Returns:
        The texts, and 1 where one tells a fact of :data:`FACTS`, else 0, as [scenes, facts].
    """
    texts, told = zip(*(caption(scene, random) for scene in batch))
    return list(texts), facts(told)


def facts(batch: Iterable[Collection[str]]) -> Tensor:
    """Sets of facts as rows of ones and zeros, [sets, facts]."""
    return torch.tensor([[float(fact in one) for fact in FACTS] for one in batch])


def identifiers(tokenizer: Any, texts: list[str]) -> Tensor:
    """Tokens of texts, padded to the length of a prompt."""
    padded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    tokens: Tensor = padded.input_ids
    return tokens
