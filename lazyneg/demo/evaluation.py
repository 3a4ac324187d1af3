"""How well the embedded model draws what it is asked for.

``torchrun --nproc_per_node 2 -m lazyneg.demo.evaluation`` measures the weights in the package and
writes ``quality.json`` beside them, from which the model card's table is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from PIL.Image import Image
from scipy.stats import binomtest
from tqdm import tqdm

from lazyneg.demo import CHECKPOINT, scenes
from lazyneg.demo.captions import sentence
from lazyneg.demo.detector import FILE, Detector
from lazyneg.demo.scenes import FACTS, OBJECTS
from lazyneg.painting import models
from lazyneg.painting.ranks import Ranks, joined

STEPS = 20
GUIDANCE = 7.5
_BATCH = 16

_COLORLESS = ("girl", "girl wearing glasses", "boy wearing a hat", "cat", "girl eating pizza")
"""Prompts that leave the colours to the model."""

_IMPLIED = {"glasses": "pizza", "hat": "boy", "balloon": "cat"}
"""What goes together in the drawings: the second brings along the first unasked."""


@dataclass(frozen=True)
class Job:
    """One picture to paint."""

    prompt: str
    negative: str
    seed: int
    guidance: float = GUIDANCE


def prompts(number: int) -> Iterator[tuple[str, frozenset[str]]]:
    """Prompts for anything in any combination, also rare ones, and the facts they tell."""
    random = Random("prompts")
    for _ in range(number):
        glasses, hat, pizza, balloon = (random.random() < 0.5 for _ in OBJECTS)
        scene = replace(
            scenes.sample(random),
            glasses=glasses,
            hat=random.choice(list(scenes.HATS)) if hat else None,
            pizza=pizza,
            balloon=balloon,
            monochrome=random.random() < 0.1,
        )
        # Every object there is, and half of the colours.
        told = {fact for fact in sorted(scene.facts()) if " " not in fact or random.random() < 0.5}
        yield sentence(scene, frozenset(told), random), frozenset(told)


def paint(pipe: Any, jobs: Sequence[Job]) -> list[Image]:
    """Paints pictures, all with the same guidance."""
    pictures: list[Image] = pipe(
        [job.prompt for job in jobs],
        negative_prompt=[job.negative for job in jobs],
        num_inference_steps=STEPS,
        guidance_scale=jobs[0].guidance,
        generator=[torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
    ).images
    return pictures


Found = npt.NDArray[np.bool_]


def measure(pipe: Any, detector: Detector, seeds: int, ranks: Ranks) -> dict[str, Any]:
    """Measures a model, shared among the processes.

    Args:
        pipe: The model.
        detector: Looks at its pictures.
        seeds: Number of pictures behind each part of the answer.
        ranks: The processes.

    Returns:
        The counts of each part, as [right, of].
    """
    asked = list(prompts(seeds))
    groups = {
        scale: [Job(text, "", seed, scale) for seed, (text, _) in enumerate(asked)]
        for scale in (1.0, 3.0, 5.0, GUIDANCE)
    }
    plain = [Job("girl eating pizza", "", seed) for seed in range(seeds)]
    negative = [replace(job, negative="glasses") for job in plain]
    colorless = {
        text: [Job(text, "", seed) for seed in range(-(-seeds // 4))] for text in _COLORLESS
    }
    found = _found(pipe, detector, [*groups.values(), *colorless.values(), plain, negative], ranks)
    told = [facts for _, facts in asked]
    return {
        "seeds": seeds,
        "steps": STEPS,
        "guidance": GUIDANCE,
        **count(
            told,
            dict(zip(groups, found)),
            dict(zip(colorless, found[len(groups) :])),
            *found[-2:],
        ),
    }


def count(
    told: Sequence[frozenset[str]],
    by_scale: Mapping[float, Found],
    colorless: Mapping[str, Found],
    plain: Found,
    negative: Found,
) -> dict[str, Any]:
    """Compares what was found with what was asked for.

    Args:
        told: The facts that each prompt tells.
        by_scale: For each guidance scale what was found, [prompts, facts].
        colorless: What was found for prompts that name no colour, [seeds, facts].
        plain: What was found on girls eating pizza, [seeds, facts].
        negative: And on those of the same seeds with the negative prompt "glasses".

    Returns:
        The counts of each part, as [right, of].
    """
    present = _present(told, by_scale[GUIDANCE])
    before, after = (part[:, FACTS.index("glasses")] for part in (plain, negative))
    return {
        "present when asked": present,
        "absent when not asked nor implied": _absent(told, by_scale[GUIDANCE]),
        "colours when asked": {
            kind: _total(present, [fact for fact in FACTS if fact.endswith(f" {kind}")])
            for kind in ("background", "hair", "fur", "hat")
        },
        "objects present by guidance": {
            str(scale): _total(_present(told, part), OBJECTS) for scale, part in by_scale.items()
        },
        "objects absent by guidance": {
            str(scale): _total(_absent(told, part), OBJECTS) for scale, part in by_scale.items()
        },
        "glasses unasked on a girl eating pizza": [int(before.sum()), len(before)],
        "of those, removed by the negative prompt from step 0": [
            int((before & ~after).sum()),
            int(before.sum()),
        ],
        "black and white unasked": {
            text: _count(part[:, FACTS.index("monochrome")].tolist())
            for text, part in colorless.items()
        },
    }


def _found(
    pipe: Any, detector: Detector, groups: Sequence[Sequence[Job]], ranks: Ranks
) -> list[Found]:
    batches = [
        (number, group[start : start + _BATCH])
        for number, group in enumerate(groups)
        for start in range(0, len(group), _BATCH)
    ]
    bar = tqdm(ranks.share(batches), desc="pictures", unit="batch", disable=ranks.rank > 0)
    seen = ranks.gather([detector(paint(pipe, batch)) >= 0.5 for _, batch in bar])
    return [
        np.concatenate([part for (group, _), part in zip(batches, seen) if group == number])
        for number in range(len(groups))
    ]


def _present(told: Sequence[frozenset[str]], found: Found) -> dict[str, list[int]]:
    return {
        fact: _count([seen[column] for facts, seen in zip(told, found) if fact in facts])
        for column, fact in enumerate(FACTS)
    }


def _absent(told: Sequence[frozenset[str]], found: Found) -> dict[str, list[int]]:
    return {
        name: _count(
            [
                not seen[FACTS.index(name)]
                for facts, seen in zip(told, found)
                if name not in facts
                and _IMPLIED.get(name) not in facts
                # What has a colour is not in black and white.
                and not (name == "monochrome" and any(" " in fact for fact in facts))
            ]
        )
        for name in (*OBJECTS, "monochrome")
    }


def _count(right: Sequence[bool]) -> list[int]:
    return [int(sum(right)), len(right)]


def _total(counts: dict[str, list[int]], names: Sequence[str]) -> list[int]:
    right, of = zip(*(counts[name] for name in names))
    return [sum(right), sum(of)]


def table(quality: dict[str, Any]) -> str:
    """The measurements as tables in Markdown, with Wilson's 95 % intervals."""
    lines = []
    for title, value in quality.items():
        if isinstance(value, dict):
            lines += ["", f"| {title} | pictures | share | 95 % interval |", "|---|---|---|---|"]
            lines += [f"| {name} | {_share(*counts)} |" for name, counts in value.items()]
        elif isinstance(value, list):
            lines += ["", f"| {title} | share | 95 % interval |", "|---|---|---|"]
            lines += [f"| {_share(*value)} |"]
    return "\n".join(lines[1:]) + "\n"


def _share(right: int, of: int) -> str:
    if not of:
        return "none | |"
    interval = binomtest(right, of).proportion_ci(method="wilson")
    low, high = 100 * interval.low, 100 * interval.high
    return f"{right} of {of} | {100 * right / of:.1f} % | {low:.1f} to {high:.1f} %"


def main(
    folder: Annotated[Path, typer.Argument(help="Where the weights are.")] = CHECKPOINT.parent,
    seeds: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Measures the embedded model."""
    path = folder / CHECKPOINT.name
    with joined() as ranks:
        pipe = models.load(path, folder / "config", ranks.gpu or "cpu", "float32")
        pipe.set_progress_bar_config(disable=True)
        quality = {
            "model": models.short_hash(path),
            **measure(pipe, Detector(folder / FILE.name), seeds, ranks),
        }
    if ranks.rank == 0:
        text = json.dumps(quality, indent=2) + "\n"
        (folder / "quality.json").write_text(text, "utf-8")
        print(table(quality))


if __name__ == "__main__":
    typer.run(main)
