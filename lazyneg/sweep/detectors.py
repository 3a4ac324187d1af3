"""Telling whether an object is in a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

KINDS = {"clip": "zero-shot-image-classification", "owl": "zero-shot-object-detection"}
"""Kinds of detectors, and the pipelines of transformers that run them."""


class DetectorError(Exception):
    """A detector cannot be used. The message says why, and what can."""


class Detector(Protocol):
    """What tells which objects are in pictures."""

    @property
    def names(self) -> Sequence[str]:
        """The objects it knows."""

    def __call__(self, images: Sequence[Image], /) -> NDArray[Any]:
        """The probability, or a score from 0 to 1, of each object.

        Returns:
            Shape ``[len(images), len(names)]``.
        """


class ZeroShot:
    """A model of transformers that looks for any words.

    Args:
        kind: One of :data:`KINDS`.
        folder: Where the model is, in transformers' layout.
        names: The words to look for. CLIP weighs each against another text, which may follow
            after a bar: ``a face with glasses|a face``. Without one it is ``no`` and the words.
        device: Where to run it.

    Raises:
        DetectorError: If there is no such model there.
    """

    def __init__(self, kind: str, folder: Path, names: Sequence[str], device: str) -> None:
        from transformers import pipeline

        self.names = tuple(names)
        self.kind = kind
        if not (folder / "config.json").exists():
            raise DetectorError(f"{folder} is not a model of transformers: it has no config.json")
        try:
            self.pipe: Any = pipeline(
                KINDS[kind], model=str(folder), device=device, trust_remote_code=False
            )
        except (AssertionError, ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
            raise DetectorError(f"{folder} cannot be loaded for {kind}: {error}") from error

    def __call__(self, images: Sequence[Image]) -> NDArray[Any]:
        columns = [self._scores(images, *name.split("|", 1)) for name in self.names]
        return np.array(columns).T

    def _scores(self, images: Sequence[Image], words: str, other: str | None = None) -> list[float]:
        pictures = [image.convert("RGB") for image in images]
        if self.kind == "owl":
            asked = [{"image": picture, "candidate_labels": [words]} for picture in pictures]
            # Where the threshold is, is not for the pipeline to say.
            found = self.pipe(asked, threshold=0.0)
        else:
            labels = [words, other or f"no {words}"]
            found = self.pipe(pictures, candidate_labels=labels, hypothesis_template="{}")
        return [
            max((one["score"] for one in image if one["label"] == words), default=0.0)
            for image in found
        ]


def known_in(text: str, names: Sequence[str]) -> list[str]:
    """The objects that a negative prompt names, out of those that a detector knows.

    Of names within each other, such as ``hat`` and ``red hat``, the longest.
    """
    found: list[str] = []
    for name in sorted(names, key=len, reverse=True):
        text, count = re.subn(rf"\b{re.escape(name)}\b", "|", text, flags=re.IGNORECASE)
        found += [name] * bool(count)
    return sorted(found, key=list(names).index)
