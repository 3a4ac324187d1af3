"""What a sweep makes: rows of settings, the paintings they need, and batches of pictures."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

from lazyneg.core.settings import Settings
from lazyneg.painting.infotext import Infotext
from lazyneg.painting.pictures import label


@dataclass(frozen=True)
class Grid:
    """What was asked for.

    Attributes:
        prompts: What to paint.
        negatives: Negative prompts; each goes with each prompt.
        seeds: The seed of each picture of a setting.
        critical_steps: In ``unit``.
        stop_steps: In ``unit``; 0 never stops.
        unit: ``steps`` or ``percent``.
        parameters: What all pictures share, by the WebUI's names: ``Steps``, ``CFG scale`` and,
            where they are not the model's own, ``Sampler`` and ``Size``.
        batch_size: Pictures painted at once.
        areas: In percent of the picture.
        adaptive: Whether the negative prompt acts only while it is needed: no, yes or both.
    """

    prompts: Sequence[str]
    negatives: Sequence[str]
    seeds: Sequence[int]
    critical_steps: Sequence[int]
    stop_steps: Sequence[int]
    unit: str
    parameters: Mapping[str, str]
    batch_size: int
    areas: Sequence[int] = (100,)
    adaptive: Sequence[bool] = (False,)

    @cached_property
    def settings(self) -> list[Settings]:
        """Each critical step with each stop step after it, and each choice with each of these.

        Raises:
            SettingsError: If a value is not allowed.
        """
        return [
            Settings.parse(
                {
                    "enabled": True,
                    "critical_step": first,
                    "stop_step": stop,
                    "unit": self.unit,
                    "area": area,
                    "adaptive": adaptive,
                }
            )
            for adaptive in self.adaptive
            for area in self.areas
            for stop in self.stop_steps
            for first in self.critical_steps
            if not stop or stop > first
        ]

    @property
    def skipped(self) -> int:
        """Settings that would stop before they begin."""
        return self._combinations - len(self.settings)

    @property
    def most(self) -> int:
        """Pictures that there may be, counted without making a list of them."""
        sections = len(self.prompts) * len(self.negatives)
        return sections * len(self.seeds) * (1 + self._combinations)

    @property
    def _combinations(self) -> int:
        windows = len(self.stop_steps) * len(self.critical_steps)
        return windows * len(self.areas) * len(self.adaptive)


Acting = tuple[str, int, bool]
"""The negative prompt of a step, its area and whether it is adaptive."""


@dataclass(frozen=True)
class Painting:
    """A request, but for its seed."""

    prompt: str
    negative: str
    settings: Settings


@dataclass(frozen=True)
class Batch:
    """Pictures of one painting that are made at once.

    The size of a batch shows in the last bits of its pictures. So what is in a batch is a part of
    the plan, and never depends on what is finished or on how many processes share the work.
    """

    painting: Painting
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A setting as it was asked for, and the painting that shows it.

    Attributes:
        settings: As asked for; ``None`` is the reference, without a negative prompt.
        painting: Rows that mean the same steps share one.
    """

    settings: Settings | None
    painting: Painting

    @property
    def label(self) -> str:
        return label(self.settings)


@dataclass(frozen=True)
class Strand:
    """Batches of one prompt and the same seeds, which can begin alike.

    Attributes:
        batches: In an order in which each has as many steps as possible in common with the one
            before it, so that those of only one at a time are to be remembered.
        steps: How many steps are to be computed for each.
    """

    batches: tuple[Batch, ...]
    steps: tuple[int, ...]


class Plan:
    """All rows, paintings and batches of a grid.

    Args:
        grid: What was asked for.
        iterations: Iterations of the pipeline's loop, which critical and stop step count.
        maker: What else makes a difference to the pictures: model, device and so on.
    """

    def __init__(self, grid: Grid, iterations: int, maker: Mapping[str, str]) -> None:
        self.grid = grid
        self.iterations = iterations
        self.maker = maker

    @property
    def sections(self) -> list[tuple[str, str]]:
        """The pairs of a prompt and a negative prompt."""
        return [
            (prompt, negative) for prompt in self.grid.prompts for negative in self.grid.negatives
        ]

    def reference(self, prompt: str) -> Painting:
        """What the other rows are measured by: no negative prompt."""
        return Painting(prompt, "", Settings())

    def rows(self, prompt: str, negative: str) -> list[Row]:
        """The rows of a section, the reference first."""
        reference = self.reference(prompt)
        # By the steps that have the negative prompt, and by where and while it acts in them.
        paintings = {(0, self.iterations, 100, False): Painting(prompt, negative, Settings())}
        rows = [Row(None, reference)]
        for settings in self.grid.settings:
            window = settings.window(self.iterations)
            stop = self.iterations if window.stop is None else min(window.stop, self.iterations)
            if window.critical >= stop:
                # No step has the negative prompt.
                painting = reference
            else:
                # Named by what it does, so that it is found again by those who ask otherwise.
                ends = settings if stop < self.iterations else replace(settings, stop_step=0)
                own = Painting(prompt, negative, ends)
                key = (window.critical, stop, settings.area, settings.adaptive)
                painting = paintings.setdefault(key, own)
            rows.append(Row(settings, painting))
        return rows

    @cached_property
    def paintings(self) -> list[Painting]:
        """Every painting, once."""
        rows = (row for section in self.sections for row in self.rows(*section))
        return list(dict.fromkeys(row.painting for row in rows))

    @cached_property
    def batches(self) -> list[Batch]:
        return [
            Batch(painting, seeds) for painting in self.paintings for seeds in self.seed_batches
        ]

    @property
    def seed_batches(self) -> list[tuple[int, ...]]:
        size = self.grid.batch_size
        seeds = tuple(self.grid.seeds)
        return [seeds[begin : begin + size] for begin in range(0, len(seeds), size)]

    def strands(self, batches: Iterable[Batch]) -> list[Strand]:
        """Batches by what they can have in common."""
        alike: dict[tuple[str, tuple[int, ...]], list[Batch]] = {}
        for batch in batches:
            alike.setdefault((batch.painting.prompt, batch.seeds), []).append(batch)
        return [self._strand(some) for some in alike.values()]

    def _strand(self, batches: list[Batch]) -> Strand:
        courses = {batch: self._course(batch.painting) for batch in batches}
        ordered = sorted(batches, key=courses.__getitem__)
        steps = []
        before: list[Acting] = []
        for course in map(courses.__getitem__, ordered):
            common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, course)))
            steps.append(self.iterations - common)
            before = course
        return Strand(tuple(ordered), tuple(steps))

    def _course(self, painting: Painting) -> list[Acting]:
        """What acts in each step."""
        settings = painting.settings
        window = settings.window(self.iterations)
        acting = (painting.negative, settings.area, settings.adaptive)
        return [
            acting if painting.negative and window.active(step) else ("", 100, False)
            for step in range(self.iterations)
        ]

    def job(self, painting: Painting) -> Infotext:
        return Infotext(painting.prompt, painting.negative, dict(self.grid.parameters))

    def name(self, painting: Painting, seed: int) -> str:
        """The name of a picture's file: the same for the same request, another for any other."""
        everything = {
            **self.maker,
            **self.grid.parameters,
            **painting.settings.infotext(),
            "Prompt": painting.prompt,
            "Negative prompt": painting.negative,
            "Seed": str(seed),
            "Batch size": str(self.grid.batch_size),
        }
        text = json.dumps(everything, sort_keys=True)
        words = [painting.prompt, painting.negative or label(None)]
        if painting.settings.enabled:
            words.append(label(painting.settings))
        return f"{file_name(text, *words, f'seed {seed}')}.png"


def file_name(text: str, *words: str) -> str:
    """A name for a text that no other one has, after words that tell what it is."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:40] for word in words]
    shown = "_".join(slug for slug in slugs if slug)
    return f"{shown}-{digest(text)}" if shown else digest(text)


def digest(text: str) -> str:
    """A short name for a text that no other one has."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
