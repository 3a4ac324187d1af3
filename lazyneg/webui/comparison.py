"""The entry of the Script menu that paints a request in several ways, side by side."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from modules import images, processing, scripts, shared
from PIL import Image

from lazyneg.core import tag
from lazyneg.core.settings import ACTED_KEYS, BY_NAME, ERROR_KEY
from lazyneg.webui.job import JOB, OVERRIDES

TITLE = "Lazy Negative: compare"
STEPS_KEY = "LazyNeg compared steps"
"""Infotext key of the critical steps that a comparison has besides."""

ABOUT = (
    "Paints each picture without its negative prompt, with it always, and as set in the accordion "
    "Lazy Negative, ticked or not."
)
LABEL = "More critical steps"
HELP = (
    "One picture more for each, in the accordion's unit: whole numbers with commas between, such "
    "as 0, 2, 8."
)


@dataclass(frozen=True)
class Way:
    """A way to paint the request: a column of the comparison.

    Attributes:
        label: What stands above it; where it is empty, the critical step.
        overrides: Settings in place of the accordion's.
        negative: Whether it has its negative prompt.
        tags: Whether our tags in the prompts act.
    """

    label: str
    overrides: Mapping[str, object]
    negative: bool = True
    tags: bool = False


AS_SET = Way("as set", {"enabled": True}, tags=True)


class LazyNegativeComparison(scripts.Script):
    """Paints the tab's request without its negative prompt, with it always, and as set."""

    def title(self) -> str:
        return TITLE

    def ui(self, is_img2img: bool) -> list[Any]:
        gr.HTML(ABOUT)
        steps = gr.Textbox(label=LABEL, info=HELP, lines=1, elem_id=self.elem_id("steps"))
        self.infotext_fields = [(steps, STEPS_KEY)]
        self.paste_field_names = [STEPS_KEY]
        return [steps]

    def run(self, p: Any, steps: object = "") -> Any:
        try:
            more = _read(steps)
        except ValueError as error:
            # Raised, it would not reach the page of every host.
            p.extra_generation_params[ERROR_KEY] = str(error)
            p.comment(f"Lazy Negative: {error}")
            return processing.Processed(p, [])
        ways = [
            Way("without negative prompt", {"enabled": False}, negative=False),
            Way("always", {"enabled": False}),
            AS_SET,
            *(Way("", {"critical_step": step}) for step in more),
        ]
        processing.fix_seed(p)
        shared.state.job_count = len(ways) * p.n_iter
        columns: list[Column] = []
        for number, way in enumerate(ways, start=1):
            shared.state.job = f"{number} out of {len(ways)}"
            columns.append(Column.painted(p, way))
            if shared.state.interrupted or shared.state.stopping_generation:
                break
        about = columns[min(ways.index(AS_SET), len(columns) - 1)].p
        about.extra_generation_params["Script"] = TITLE
        if more:
            about.extra_generation_params[STEPS_KEY] = ", ".join(map(str, more))
        return _beside(about, columns)


@dataclass(frozen=True)
class Column:
    """The pictures of one way.

    Attributes:
        p: The processing object that made them.
        made: What the host gave for them.
        labels: The lines above them.
    """

    p: Any
    made: Any
    labels: Sequence[str]

    @classmethod
    def painted(cls, p: Any, way: Way) -> Column:
        """Paints the request in one way. The request itself stays as it is."""
        p = copy.copy(p)
        p.extra_generation_params = dict(p.extra_generation_params)
        p.do_not_save_grid = True
        setattr(p, OVERRIDES, way.overrides)
        if not way.tags:
            _write_out_styles(p)
            for name in ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt"):
                if hasattr(p, name):
                    setattr(p, name, tag.cut(getattr(p, name))[0])
        if not way.negative:
            p.negative_prompt = p.hr_negative_prompt = ""
        made = processing.process_images(p)
        return cls(p, made, _labels(p, way))

    @property
    def pictures(self) -> list[Any]:
        """What was asked for, without masks and what extensions put beside."""
        named = [image for image in self.made.images if "parameters" in image.info]
        return (named or self.made.images)[: len(self.made.all_prompts)]


def _read(steps: object) -> list[int]:
    """The critical steps typed into the field.

    Raises:
        ValueError: On anything but whole numbers.
    """
    if not steps:
        return []
    pieces = [piece.strip() for piece in str(steps).split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", piece) for piece in pieces):
        raise ValueError(
            f"{LABEL} is {steps!r}; allowed: whole numbers from 0 to 999999999, with commas between"
        )
    return [int(piece) for piece in pieces]


def _write_out_styles(p: Any) -> None:
    """Puts the styles into the prompts, as the host does where they are not empty."""
    styles = shared.prompt_styles
    for kind, apply in (
        ("prompt", styles.apply_styles_to_prompt),
        ("negative_prompt", styles.apply_negative_styles_to_prompt),
    ):
        setattr(p, kind, apply(getattr(p, kind), p.styles))
        if getattr(p, f"hr_{kind}", ""):
            setattr(p, f"hr_{kind}", apply(getattr(p, f"hr_{kind}"), p.styles))
    p.styles = []


def _labels(p: Any, way: Way) -> list[str]:
    job = getattr(p, JOB, None)
    if not way.overrides.get("enabled", True):
        return [way.label]
    if job is None:
        return [way.label, "refused"]
    settings = job.pictures[0].first.infotext()
    if way.label:
        about = (f"{key.removeprefix('LazyNeg ')} {value}" for key, value in settings.items())
        return [way.label, ", ".join(about)]
    key = BY_NAME["critical_step"].infotext
    return [f"critical step {settings[key]}"]


def _beside(p: Any, columns: Sequence[Column]) -> Any:
    """One row for each picture of the request, with labels, and all pictures behind it."""
    first = columns[0]
    rows = len(first.pictures)
    if not rows:
        return first.made
    places = [(row, column) for row in range(rows) for column in columns]
    # An interrupt may have left some out.
    blank = Image.new("RGB", first.pictures[0].size)
    cells = [
        column.pictures[row] if row < len(column.pictures) else blank for row, column in places
    ]
    seeds = [f"seed {seed}" for seed in first.made.all_seeds[:rows]] if rows > 1 else [""]
    grid = images.draw_grid_annotations(
        images.image_grid(cells, rows=rows),
        *map(max, zip(*(cell.size for cell in cells))),
        [[images.GridAnnotation(line) for line in column.labels] for column in columns],
        [[images.GridAnnotation(seed)] for seed in seeds],
    )
    for key in ACTED_KEYS.values():
        p.extra_generation_params.pop(key, None)
    text = processing.create_infotext(p, p.all_prompts, p.all_seeds, p.all_subseeds)
    if shared.opts.enable_pnginfo:
        grid.info["parameters"] = text
    if shared.opts.grid_save:
        images.save_image(
            grid,
            p.outpath_grids,
            "compare",
            seed=p.all_seeds[0],
            prompt=p.all_prompts[0],
            extension=shared.opts.grid_format,
            info=text,
            grid=True,
            p=p,
        )
    there = [(row, column) for row, column in places if row < len(column.pictures)]
    return processing.Processed(
        p,
        [grid, *(column.pictures[row] for row, column in there)],
        p.all_seeds[0],
        text,
        all_prompts=[column.made.all_prompts[row] for row, column in there],
        all_negative_prompts=[column.made.all_negative_prompts[row] for row, column in there],
        all_seeds=[column.made.all_seeds[row] for row, column in there],
        all_subseeds=[column.made.all_subseeds[row] for row, column in there],
        index_of_first_image=1,
        infotexts=[text, *(column.made.infotexts[row] for row, column in there)],
    )
