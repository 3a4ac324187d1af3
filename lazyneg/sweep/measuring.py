"""What is measured on each picture of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import structural_similarity
from tqdm import tqdm

from lazyneg.painting.ranks import Ranks
from lazyneg.sweep.detectors import Detector
from lazyneg.sweep.plan import Plan, Row

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as fractions of the picture."""


@dataclass(frozen=True)
class Looking:
    """What to look for in the pictures, and where.

    Attributes:
        detector: Tells which objects are there; ``None`` leaves that out.
        objects: For each negative prompt the objects that it is to remove.
        regions: For a negative prompt the boxes in which it is meant to change the picture.
        threshold: Probability from which on an object counts as present.
        reword: Puts a prompt into the words that the detector has for objects.
    """

    detector: Detector | None = None
    objects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    regions: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    threshold: float = 0.5
    reword: Callable[[str], str] = str

    @property
    def words(self) -> list[str]:
        """All objects, each once."""
        return list(dict.fromkeys(word for some in self.objects.values() for word in some))


def mse(picture: NDArray[Any], reference: NDArray[Any], where: NDArray[np.bool_]) -> float:
    """Mean squared difference of two pictures, black to white being 1.

    Args:
        picture: Shape ``[height, width, 3]``, from 0 to 255, and so is ``reference``.
        reference: What it is compared with.
        where: Shape ``[height, width]``: the pixels that count.
    """
    difference = (picture.astype(float) - reference.astype(float)) / 255
    return float((difference**2)[where].mean())


def ssim(picture: NDArray[Any], reference: NDArray[Any], where: NDArray[np.bool_]) -> float:
    """Structural similarity of two pictures, 1 being the same; arguments as for :func:`mse`."""
    window = min(7, *where.shape)
    # Its windows would carry what is left out over the edge.
    picture = np.where(where[..., None], picture, reference)
    _, similarity = structural_similarity(
        reference,
        picture,
        win_size=window - (window + 1) % 2,
        data_range=255,
        channel_axis=2,
        full=True,
    )
    return float(similarity[where].mean())


def outside(shape: tuple[int, ...], boxes: Sequence[Box]) -> NDArray[np.bool_]:
    """The pixels of a picture that are in none of the boxes.

    Args:
        shape: Height and width in pixels, and what follows.
        boxes: What is left out, rounded outwards to whole pixels.
    """
    height, width = shape[:2]
    mask = np.ones((height, width), bool)
    for left, top, right, bottom in boxes:
        rows = slice(int(np.floor(top * height)), int(np.ceil(bottom * height)))
        columns = slice(int(np.floor(left * width)), int(np.ceil(right * width)))
        mask[rows, columns] = False
    return mask


def measure(plan: Plan, folder: Path, looking: Looking, ranks: Ranks) -> pd.DataFrame:
    """Measures every picture.

    Args:
        plan: What there is.
        folder: Where the pictures are.
        looking: What to look for.
        ranks: The processes that share the work.

    Returns:
        One line for each prompt, negative prompt, setting and seed. The lines without a negative
        prompt come once for each prompt, with an empty one.
    """
    # Batches here too, as detectors' last bits depend on them.
    units = [
        (negative if row.settings else "", row, seeds)
        for prompt in plan.grid.prompts
        for index, negative in enumerate(plan.grid.negatives)
        for row in plan.rows(prompt, negative)
        if row.settings or index == 0
        for seeds in plan.seed_batches
    ]
    shown = tqdm(ranks.share(units), desc="measuring", unit=" batches", disable=ranks.rank > 0)
    lines = [_measure_unit(plan, folder, looking, *unit) for unit in shown]
    table = pd.DataFrame([line for unit in ranks.gather(lines) for line in unit])
    whole = dict.fromkeys(("critical_step", "stop_step", "area"), "Int64")
    return table.astype({**whole, "adaptive": "boolean"})


def _measure_unit(
    plan: Plan, folder: Path, looking: Looking, negative: str, row: Row, seeds: Sequence[int]
) -> list[dict[str, object]]:
    reference = plan.reference(row.painting.prompt)
    names = [plan.name(row.painting, seed) for seed in seeds]
    images = [_read(folder / name) for name in names]
    found: dict[str, Any] = {}
    if looking.detector and looking.words:
        columns = looking.detector(images).T
        found = {word: columns[list(looking.detector.names).index(word)] for word in looking.words}
    boxes = looking.regions.get(negative, ())
    lines = []
    for index, (name, seed) in enumerate(zip(names, seeds, strict=True)):
        picture = np.asarray(images[index])
        before = np.asarray(_read(folder / plan.name(reference, seed)))
        everywhere = outside(picture.shape, ())
        elsewhere = outside(picture.shape, boxes)
        line: dict[str, object] = {
            "prompt": row.painting.prompt,
            "negative": negative,
            "setting": row.label,
            "critical_step": row.settings.critical_step if row.settings else None,
            "stop_step": (row.settings.stop_step or None) if row.settings else None,
            "unit": plan.grid.unit,
            "area": row.settings.area if row.settings else None,
            "adaptive": row.settings.adaptive if row.settings else None,
            "seed": seed,
            "picture": name,
            "mse": mse(picture, before, everywhere),
            "ssim": ssim(picture, before, everywhere),
            "mse_outside": mse(picture, before, elsewhere) if boxes else None,
            "ssim_outside": ssim(picture, before, elsewhere) if boxes else None,
        }
        line |= {f"has {word}": float(scores[index]) for word, scores in found.items()}
        lines.append(line)
    return lines


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        whole: Image.Image = picture.convert("RGB")
    return whole
