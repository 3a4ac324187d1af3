"""The command line."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lazyneg.cli import infotext, pictures
from lazyneg.cli.infotext import Infotext
from lazyneg.settings import Settings, SettingsError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


class Unit(str, Enum):
    """Units of the critical step and the stop step."""

    STEPS = "steps"
    PERCENT = "percent"


class DType(str, Enum):
    """Precisions of the model."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@app.callback()
def lazyneg() -> None:
    """Delay the negative prompt of Stable Diffusion until there is something to remove."""


@app.command()
def compare(
    prompt: Annotated[str | None, typer.Argument(help="What to paint.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to paint.")] = None,
    critical_step: Annotated[
        int | None,
        typer.Option(help="First step, counted from 0, with the negative prompt.  [default: 5]"),
    ] = None,
    unit: Annotated[
        Unit | None, typer.Option(help="Of the critical and the stop step.  [default: steps]")
    ] = None,
    stop_step: Annotated[
        int | None, typer.Option(help="First step without the negative prompt again.")
    ] = None,
    early_prompt: Annotated[
        str | None, typer.Option(help="Negative prompt of the steps before the critical one.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint file, or folder in diffusers' layout.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Folder with the configuration for a checkpoint file."),
    ] = None,
    embedding: Annotated[
        list[Path] | None,
        typer.Option(help="File of a textual inversion; its name is the word. Repeatable."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="PNG or text with infotext to start from, as the WebUI writes it. A text can "
            "have several. Arguments given besides overrule it.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="[default: 20]")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="By the WebUI's name, such as 'Euler a'.  [default: the model's own]"),
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="[default: 7]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="[default: random]")] = None,
    width: Annotated[int | None, typer.Option(min=8, help="[default: the model's own]")] = None,
    height: Annotated[int | None, typer.Option(min=8, help="[default: the model's own]")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("lazyneg"),
    device: Annotated[str | None, typer.Option(help="[default: the fastest there is]")] = None,
    dtype: Annotated[
        DType | None, typer.Option(help="[default: float32 on the CPU, half elsewhere]")
    ] = None,
) -> None:
    """Paint with the negative prompt from the start, delayed, and without it.

    Writes plain.png, delayed.png and empty.png with infotext, and compare.png with all three
    side by side.
    """
    if (width is None) != (height is None):
        raise typer.BadParameter("give both or none", param_hint="--width and --height")
    given = {
        "Steps": steps,
        "Sampler": sampler,
        "CFG scale": guidance_scale,
        "Seed": seed,
        "Size": f"{width}x{height}" if width else None,
    }
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    delay = {
        "critical_step": critical_step,
        "unit": unit and unit.value,
        "stop_step": stop_step,
        "early_prompt": early_prompt,
    }
    jobs = [
        (job, _settings(job, delay))
        for start in _starts(source)
        for job in [_job(start, prompt, negative, parameters)]
    ]
    if model is None:
        raise typer.BadParameter("give a checkpoint file or a folder", param_hint="--model")
    # Only now, as it takes seconds.
    from lazyneg.cli.models import ModelError
    from lazyneg.cli.painting import Painter

    try:
        painter = Painter(model, config, embedding or [], device, dtype and dtype.value)
        output.mkdir(parents=True, exist_ok=True)
        for number, (job, settings) in enumerate(jobs, 1):
            prefix = f"{number}-" if len(jobs) > 1 else ""
            made = {
                "plain": painter.paint(job, Settings(), "plain"),
                "delayed": painter.paint(job, settings, "delayed"),
                "empty": painter.paint(replace(job, negative=""), Settings(), "empty"),
            }
            row = pictures.side_by_side({name: picture for name, (picture, _) in made.items()})
            for name, (picture, text) in {**made, "compare": (row, made["delayed"][1])}.items():
                path = output / f"{prefix}{name}.png"
                pictures.save(picture, path, str(text))
                typer.echo(path)
    except ModelError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def _starts(source: Path | None) -> list[Infotext]:
    """The infotexts in a file; an empty one without a file."""
    if source is None:
        return [Infotext("")]
    try:
        if source.suffix.lower() == ".png":
            text = pictures.infotext_of(source) or ""
        else:
            text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {source}: {error}", param_hint="--from") from error
    starts = [infotext.parse(one) for one in infotext.split(text)]
    if not starts:
        raise typer.BadParameter(f"there is no infotext in {source}", param_hint="--from")
    return starts


def _job(
    start: Infotext, prompt: str | None, negative: str | None, parameters: dict[str, str]
) -> Infotext:
    """What to paint: an infotext, and what the command line says besides."""
    defaults = {"Steps": "20", "CFG scale": "7", "Seed": str(random.getrandbits(32))}
    job = Infotext(
        start.prompt if prompt is None else prompt,
        start.negative if negative is None else negative,
        {**defaults, **start.parameters, **parameters},
    )
    for text, hint in ((job.prompt, "PROMPT"), (job.negative, "--negative")):
        if not text:
            raise typer.BadParameter("give one, or --from a file that has one", param_hint=hint)
    for name, allowed in _ALLOWED.items():
        value = job.parameters.get(name)
        if value is not None and not re.fullmatch(allowed, value):
            raise typer.BadParameter(f"{name} is {value!r}", param_hint="--from")
    return job


_ALLOWED = {
    "Steps": "[1-9][0-9]*",
    "CFG scale": r"[0-9]+(\.[0-9]+)?",
    "Seed": "[0-9]+",
    "Size": "[0-9]+x[0-9]+",
    "Clip skip": "[1-9][0-9]*",
}


def _settings(job: Infotext, delay: Mapping[str, object]) -> Settings:
    """The delay that an infotext has, and what the command line says besides."""
    try:
        before = Settings.from_infotext(job.parameters)
        values = {name: getattr(before, name) for name in delay} if before.enabled else {}
        values |= {name: value for name, value in delay.items() if value is not None}
        return Settings.parse({"enabled": True, **values})
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
