"""`lazyneg sweep`: many pictures, measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lazyneg.cli import options
from lazyneg.core import tag
from lazyneg.core.settings import SettingsError, shown

if TYPE_CHECKING:
    from lazyneg.sweep.measuring import Box, Looking
    from lazyneg.sweep.plan import Grid, Plan

_MOST = 1_000_000
"""Pictures, and so seeds and settings: no sweep of more ends."""


class Adaptive(str, Enum):
    """What of the setting ``adaptive`` is tried."""

    NO = "no"
    YES = "yes"
    BOTH = "both"


_ADAPTIVE = {Adaptive.NO: (False,), Adaptive.YES: (True,), Adaptive.BOTH: (False, True)}


def sweep(
    prompt: Annotated[list[str], typer.Option(help="What to paint. Repeatable.")],
    negative: Annotated[
        list[str],
        typer.Option(help="What not to paint. Repeatable; each goes with each prompt."),
    ],
    seeds: Annotated[str, typer.Option(help="Such as 0-63 or 1,5,8-10.")] = "0-15",
    critical_steps: Annotated[
        str,
        typer.Option(help="First steps with the negative prompt; 0 is the plain negative prompt."),
    ] = "0,1,2,3,5,8,10,15",
    stop_steps: Annotated[
        str,
        typer.Option(help="First steps without it again, such as never,10,15."),
    ] = "never",
    unit: options.UnitOption = None,
    areas: Annotated[
        str,
        typer.Option(
            help="Percents of the picture in which the negative prompt acts, such as 100,20,10."
        ),
    ] = "100",
    adaptive: Annotated[
        Adaptive,
        typer.Option(help="Whether it acts only while what it names shows in the picture."),
    ] = Adaptive.NO,
    model: options.ModelOption = None,
    config: options.ConfigOption = None,
    embedding: options.EmbeddingOption = None,
    steps: options.StepsOption = None,
    sampler: options.SamplerOption = None,
    schedule: options.ScheduleOption = None,
    guidance_scale: options.GuidanceOption = None,
    width: options.SideOption = None,
    height: options.SideOption = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="clip:FOLDER or owl:FOLDER, a model of transformers that finds objects.  "
            "[default: the embedded model's own; none for others]",
        ),
    ] = None,
    object_: Annotated[
        list[str] | None,
        typer.Option(
            "--object",
            help="What the detector looks for. Repeatable.  [default: what the negative names]",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            callback=options.within(0, 1), help="Score, 0 to 1, from which on an object is there."
        ),
    ] = 0.5,
    region: Annotated[
        str | None,
        typer.Option(
            help="Left,top,right,bottom of where the object can be, as fractions; change is "
            "measured outside.  [default: the embedded model's own; none for others]",
        ),
    ] = None,
    output: options.OutputOption = Path("sweep"),
    batch_size: Annotated[
        int, typer.Option(callback=options.within(1), help="Pictures painted at once.")
    ] = 8,
    threads: Annotated[
        int,
        typer.Option(
            callback=options.within(1, 1024),
            help="Of each process, on the CPU; several processes share the work better.",
        ),
    ] = 1,
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the work and write nothing.")
    ] = False,
) -> None:
    """Paint prompts, negatives, seeds and settings in all combinations, and measure them.

    Writes pictures, contact sheets, tables, plots, report.md and index.html. The same command
    again goes on where an interrupted one ended. Several processes share the work:
    torchrun --nproc-per-node 2 -m lazyneg sweep ...
    """
    parameters = {
        **options.DEFAULTS,
        **options.webui_parameters(steps, sampler, schedule, guidance_scale, width, height),
    }
    from lazyneg.sweep.plan import Grid

    try:
        grid = Grid(
            prompts=_texts(prompt, "--prompt"),
            negatives=_texts(negative, "--negative"),
            seeds=_seeds(seeds),
            critical_steps=_numbers(critical_steps, "--critical-steps"),
            stop_steps=_numbers(stop_steps, "--stop-steps", least=1, never=True),
            unit=unit.value if unit else "steps",
            parameters=parameters,
            batch_size=batch_size,
            areas=_numbers(areas, "--areas", least=1)[::-1],
            adaptive=_ADAPTIVE[adaptive],
        )
        if (count := grid.most) > _MOST:
            raise typer.BadParameter(
                f"{count} pictures; allowed: at most {_MOST}, of all prompts, negatives, seeds and "
                "settings together"
            )
        if not grid.settings:
            raise typer.BadParameter(
                f"{stop_steps!r} is never after {critical_steps!r}; allowed: never, or more than "
                "a critical step",
                param_hint="--stop-steps",
            )
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
    _refuse_tags(grid)
    if float(parameters["CFG scale"]) <= 1:
        raise typer.BadParameter(
            f"{parameters['CFG scale']}; allowed: more than 1, as there is no negative prompt "
            "without guidance",
            param_hint="--guidance-scale",
        )
    box = None if region is None else _box(region)
    files = options.model_files(model, config)
    # Only now, as it takes seconds.
    import torch

    from lazyneg.painting.models import ModelError
    from lazyneg.painting.painter import Painter
    from lazyneg.painting.ranks import OtherProcessError, joined
    from lazyneg.sweep.detectors import DetectorError
    from lazyneg.sweep.plan import Plan

    try:
        from lazyneg.sweep.making import missing
        from lazyneg.sweep.measuring import outside
        from lazyneg.sweep.run import sweep as run
    except ModuleNotFoundError as error:
        raise options.failed(
            f"{error.name} is missing: pip install '.[sweep]' in a checkout of lazyneg"
        ) from error

    if box and width and height and not outside((height, width), [box]).any():
        raise typer.BadParameter(
            f"{region!r} leaves no pixel of {width}x{height}; allowed: a smaller region",
            param_hint="--region",
        )
    try:
        with joined() as ranks:
            if device in (None, "cuda"):
                device = ranks.gpu or device
            # Before the model, which takes longer to load.
            looking = _looking(grid, model is None, detector, object_, threshold, box, device)
            painter = Painter(*files, embedding or [], device, dtype and dtype.value)
            maker = painter.made_with()
            # Their number shows in the last bits, also of a detector, and launchers would set it.
            torch.set_num_threads(threads)
            if maker["Device"] == "cpu":
                maker["Threads"] = str(threads)
            plan = Plan(grid, painter.steps(parameters), maker)
            if not any(painting.negative for painting in plan.paintings):
                raise typer.BadParameter(
                    f"{critical_steps!r} and {stop_steps!r} leave none of {plan.iterations} steps "
                    "to the negative prompt; allowed: also an earlier begin or a later stop",
                    param_hint="--critical-steps and --stop-steps",
                )
            if dry_run:
                if ranks.rank == 0:
                    typer.echo(_work(plan, missing(plan, output / "pictures")))
                return
            summaries = run(plan, painter, looking, output, ranks)
            if ranks.rank == 0:
                for summary in summaries:
                    typer.echo(options.printable(f"{summary.title}: {summary.verdict}."))
                typer.echo(output / "index.html")
    except (ModelError, DetectorError, OtherProcessError, OSError) as error:
        raise options.failed(error) from error
    except KeyboardInterrupt:
        typer.echo("Interrupted. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None


def _work(plan: Plan, missing: list[list[str]]) -> str:
    """The size of a sweep, in words."""
    absent = sum(map(len, missing))
    todo = [batch for batch, names in zip(plan.batches, missing, strict=True) if names]
    steps = sum(sum(strand.steps) for strand in plan.strands(todo))
    pictures = len(plan.paintings) * len(plan.grid.seeds)
    grid = plan.grid
    skipped = f" ({grid.skipped} skipped: they stop before they begin)" if grid.skipped else ""
    return (
        f"prompts {len(grid.prompts)}, negatives {len(grid.negatives)}, settings "
        f"{len(grid.settings)}{skipped}, seeds {len(grid.seeds)}\n"
        f"pictures {pictures}: {pictures - absent} finished, {absent} to make in {len(todo)} "
        f"batches of up to {grid.batch_size}, {steps} denoiser steps"
    )


def _looking(
    grid: Grid,
    embedded: bool,
    spec: str | None,
    objects: list[str] | None,
    threshold: float,
    box: Box | None,
    device: str | None,
) -> Looking:
    """What to look for, and where, by the options and what the embedded model knows."""
    from lazyneg.painting.models import default_device
    from lazyneg.sweep import detectors
    from lazyneg.sweep.measuring import Looking

    detector: detectors.Detector | None = None
    named: dict[str, list[str]] = {}
    reword: Callable[[str], str] = str
    regions = {negative: [box] for negative in grid.negatives if box}
    if spec is not None:
        kind, _, folder = spec.partition(":")
        if kind not in detectors.KINDS or not folder:
            allowed = " or ".join(f"{kind}:FOLDER" for kind in detectors.KINDS)
            raise typer.BadParameter(f"{spec!r}; allowed: {allowed}", param_hint="--detector")
        for negative in grid.negatives:
            parts = (part.strip() for part in negative.split(","))
            named[negative] = objects or [part for part in parts if part]
        words = dict.fromkeys(word for some in named.values() for word in some)
        detector = detectors.ZeroShot(kind, Path(folder), list(words), device or default_device())
    elif embedded:
        from lazyneg.demo.captions import as_facts
        from lazyneg.demo.detector import Detector
        from lazyneg.demo.scenes import region_of

        detector = Detector()
        reword = as_facts
        if unknown := set(objects or ()) - set(detector.names):
            raise typer.BadParameter(
                f"{', '.join(sorted(unknown))}; allowed: {', '.join(detector.names)}",
                param_hint="--object",
            )
        for negative in grid.negatives:
            named[negative] = objects or detectors.known_in(reword(negative), detector.names)
            boxes = [known for word in named[negative] if (known := region_of(word))]
            # What has no region can be anywhere.
            if boxes and not box and len(boxes) == len(named[negative]):
                regions[negative] = boxes
    elif objects:
        raise typer.BadParameter("give a --detector that finds it", param_hint="--object")
    return Looking(detector, named, regions, threshold, reword)


def _texts(texts: list[str], option: str) -> list[str]:
    """Texts, each once."""
    stripped = [text.strip() for text in texts]
    if not all(stripped):
        raise typer.BadParameter("a text is empty; allowed: any other", param_hint=option)
    for text in stripped:
        options.check_text(text, option)
    return list(dict.fromkeys(stripped))


def _refuse_tags(grid: Grid) -> None:
    """A tag would decide when, in place of the steps that are to be compared."""
    for texts, option in ((grid.prompts, "--prompt"), (grid.negatives, "--negative")):
        for text in texts:
            if tag.cut(text)[1] or tag.misuses(text, ""):
                raise typer.BadParameter(
                    f"{text!r} has a <{tag.NAME}:…> tag; allowed: texts without, as "
                    "--critical-steps and --stop-steps decide",
                    param_hint=option,
                )


def _seeds(text: str) -> list[int]:
    """Seeds from a list of numbers and ranges, each once."""
    seeds: dict[int, None] = {}
    count = 0
    number = r"([0-9]{1,20})"
    for part in text.split(","):
        match = re.fullmatch(rf"\s*{number}(?:\s*-\s*{number})?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        # Counted with those that come twice, which is soon enough.
        count += last - first + 1
        if first > last or last > options.LARGEST_SEED or count > _MOST:
            raise typer.BadParameter(
                f"{shown(part.strip())}; allowed: whole numbers and ranges, such as 0-63 or "
                f"1,5,8-10, up to {options.LARGEST_SEED}, and at most {_MOST} in all",
                param_hint="--seeds",
            )
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def _numbers(text: str, option: str, least: int = 0, never: bool = False) -> list[int]:
    """Whole numbers, each once and rising; 0 for never, which comes first."""
    steps = set()
    for part in map(str.strip, text.split(",")):
        if never and part == "never":
            steps.add(0)
        elif re.fullmatch("[0-9]{1,9}", part) and int(part) >= least:
            steps.add(int(part))
        else:
            allowed = f"{'never, and ' if never else ''}whole numbers from {least}"
            raise typer.BadParameter(f"{shown(part)}; allowed: {allowed}", param_hint=option)
    return sorted(steps)


def _box(text: str) -> Box:
    """A region from four fractions."""
    number = r"\s*(0|1|[01]?\.[0-9]+)\s*"
    if match := re.fullmatch(",".join([number] * 4), text):
        left, top, right, bottom = map(float, match.groups())
        if left < right <= 1 and top < bottom <= 1 and (right - left) * (bottom - top) <= 0.9:
            return left, top, right, bottom
    raise typer.BadParameter(
        f"{shown(text)}; allowed: left,top,right,bottom as fractions of the picture, at most "
        "nine tenths of it, such as 0.3,0.2,0.7,0.4",
        param_hint="--region",
    )
