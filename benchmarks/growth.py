"""How what a delay costs grows: ``python -m benchmarks.growth`` measures on the embedded model.

It writes ``docs/measurements/growth.json`` and draws ``docs/images/growth.svg`` from it; with
``--draw`` it only draws.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import lazyneg
from benchmarks.measuring import counts, quartiles, times
from lazyneg import demo
from lazyneg.sweep import plots

DOCS = Path(__file__).parents[1] / "docs"
DATA = DOCS / "measurements" / "growth.json"
DRAWING = DOCS / "images" / "growth.svg"
ROUNDS = 3


@dataclass(frozen=True)
class Size:
    """What a call is asked for.

    Attributes:
        batch: Pictures.
        side: Of a picture, in pixels.
        steps: Denoiser steps.
        tokens: Of the negative prompt, and of the prompt, which is as long.
    """

    batch: int = 1
    side: int = 128
    steps: int = 20
    tokens: int = 77


AXES = {
    "batch": ("pictures in the batch", (1, 2, 4)),
    "side": ("side of the pictures in pixels", (64, 128, 192)),
    "steps": ("steps", (10, 20, 40)),
    "tokens": ("tokens of the negative prompt", (77, 154, 308)),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "from a quarter of the steps on": {"critical_step": 25, "unit": "percent"},
    "adaptive": {"critical_step": 0, "adaptive": True},
    "area 10 %": {"critical_step": 0, "area": 10},
}


def measure() -> Iterator[dict[str, Any]]:
    """A point for each size and setting, with quartiles of CPU time and rows, times plain."""
    pipe = demo.pipeline()
    pipe.set_progress_bar_config(disable=True)
    for axis, (_, values) in AXES.items():
        for value in values:
            size = replace(Size(), **{axis: value})
            for setting, figures in _beside_plain(pipe, size).items():
                yield {"axis": axis, **asdict(size), "setting": setting, **figures}


def _beside_plain(pipe: Any, size: Size) -> dict[str, dict[str, Any]]:
    text, negative, empty = _embeddings(pipe, size.tokens)

    def call() -> None:
        pipe(
            prompt_embeds=text,
            negative_prompt_embeds=negative,
            num_images_per_prompt=size.batch,
            width=size.side,
            height=size.side,
            num_inference_steps=size.steps,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(1),
        )

    rows = {"plain": counts(pipe, call)["denoiser rows"]}
    cpu: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):
        plain = times(call)["cpu"]
        for name, settings in SETTINGS.items():
            with lazyneg.lazy_negative(pipe, **settings, early_prompt_embeds=empty):
                if name not in rows:
                    rows[name] = counts(pipe, call)["denoiser rows"]
                cpu[name].append(times(call)["cpu"] / plain)
    return {
        name: {"cpu": quartiles(cpu[name]), "rows": rows[name] / rows["plain"]} for name in SETTINGS
    }


def _embeddings(pipe: Any, tokens: int) -> list[torch.Tensor]:
    """Of a prompt, a negative and the empty prompt, repeated up to a length."""
    with torch.no_grad():
        encoded = [
            pipe.encode_prompt(text, "cpu", 1, False)[0]
            for text in ("girl eating pizza", "glasses", "")
        ]
    return [one.repeat(1, tokens // one.shape[1], 1) for one in encoded]


def draw(points: list[dict[str, Any]]) -> bytes:
    """An SVG with a panel for each of :data:`AXES`."""
    with plots.in_style("growth"):
        figure = Figure(figsize=(12.5, 3.4), layout="constrained")
        panels = figure.subplots(1, len(AXES), sharey=True)
        for panel, (axis, (title, values)) in zip(panels, AXES.items()):
            for color, setting in zip(plots.COLORS, SETTINGS):
                found = [one for one in points if (one["axis"], one["setting"]) == (axis, setting)]
                low, middle, high = zip(*(one["cpu"] for one in found))
                around = [
                    [m - one for m, one in zip(middle, low)],
                    [one - m for m, one in zip(middle, high)],
                ]
                panel.errorbar(
                    values, middle, around, color=color, marker="o", capsize=3, label=setting
                )
                panel.plot(values, [one["rows"] for one in found], color=color, linestyle=":")
            panel.set_xscale("log", base=2)
            panel.set_xticks(values, [str(value) for value in values])
            panel.set_xlabel(title)
        panels[0].set_ylabel("CPU time, times plain")
        panels[0].plot([], [], color="#555555", linestyle=":", label="denoiser rows, times plain")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        return plots.svg(figure)


if __name__ == "__main__":
    if sys.argv[1:] != ["--draw"]:
        DATA.write_text(json.dumps([*measure()], indent=1) + "\n", encoding="utf-8")
    DRAWING.write_bytes(draw(json.loads(DATA.read_text("utf-8"))))
