"""Options that several commands have."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from lazyneg.demo import CHECKPOINT, CONFIG

Number = TypeVar("Number", int, float)


def within(least: Number, most: Number | None = None) -> Callable[[Number | None], Number | None]:
    """A callback that refuses numbers outside a range, and names them and the range."""

    def check(value: Number | None) -> Number | None:
        # Written out, as not a number is in no range.
        if value is not None and not (least <= value and (most is None or value <= most)):
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise typer.BadParameter(f"{value}; allowed: {allowed}")
        return value

    return check


class Unit(str, Enum):
    """Units of the critical step and the stop step."""

    STEPS = "steps"
    PERCENT = "percent"


class DType(str, Enum):
    """Precisions of the model."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


UnitOption = Annotated[
    Unit | None, typer.Option(help="Of the critical and the stop step.  [default: steps]")
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint file, or folder in diffusers' layout.  [default: the embedded model]"
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Folder with the configuration for a checkpoint file."
    ),
]
EmbeddingOption = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="File of a textual inversion; its name is the word. Repeatable.",
    ),
]
OutputOption = Annotated[
    Path, typer.Option(file_okay=False, writable=True, help="Folder to write to.")
]
DEFAULTS = {"Steps": "20", "CFG scale": "7"}
"""What is painted with where nothing is said, by the WebUI's names."""
LARGEST_SEED = 2**64 - 1
"""What fits into a generator of PyTorch."""

MOST_STEPS = 10_000
LARGEST_SIDE = 99_999
"""Of a picture, in pixels."""

StepsOption = Annotated[
    int | None,
    typer.Option(callback=within(1, MOST_STEPS), help=f"[default: {DEFAULTS['Steps']}]"),
]
SamplerOption = Annotated[
    str | None,
    typer.Option(help="By the WebUI's name, such as 'Euler a'.  [default: the model's own]"),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        help="The WebUI's schedule type, such as Karras.  [default: the sampler's in the WebUI]"
    ),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(callback=within(0, 1000), help=f"0 to 1000.  [default: {DEFAULTS['CFG scale']}]"),
]
SideOption = Annotated[
    int | None, typer.Option(callback=within(8, LARGEST_SIDE), help="[default: the model's own]")
]
DeviceOption = Annotated[str | None, typer.Option(help="[default: the fastest there is]")]
DTypeOption = Annotated[
    DType | None, typer.Option(help="[default: float32 on the CPU, half elsewhere]")
]


def say(message: str) -> None:
    """Tells something that the user may want to know, beside the output."""
    typer.echo(f"Note: {printable(message)}", err=True)


def failed(message: object) -> typer.Exit:
    """Tells why nothing more is done, and what to raise then."""
    typer.echo(f"Error: {printable(str(message))}", err=True)
    return typer.Exit(1)


def printable(text: str) -> str:
    """A text without what a terminal would obey."""
    return re.sub("[\0-\x09\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def check_text(text: str, hint: str) -> None:
    """Refuses bytes that the shell could not decode.

    Raises:
        typer.BadParameter: If there are any.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise typer.BadParameter(f"{text!a}; allowed: text in UTF-8", param_hint=hint) from error


def webui_parameters(
    steps: int | None,
    sampler: str | None,
    schedule: str | None,
    guidance_scale: float | None,
    width: int | None,
    height: int | None,
) -> dict[str, str]:
    """The options given, by the WebUI's names.

    Raises:
        typer.BadParameter: If only one side of the picture is given.
    """
    if (width is None) != (height is None):
        raise typer.BadParameter("give both or none", param_hint="--width and --height")
    if sampler is not None:
        from lazyneg.painting.samplers import split_name

        sampler, in_name = split_name(sampler, "")
        schedule = schedule or in_name or None
    given = {
        "Steps": steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": None if guidance_scale is None else f"{guidance_scale:g}",
        "Size": f"{width}x{height}" if width else None,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def model_files(model: Path | None, config: Path | None) -> tuple[Path, Path | None]:
    """The model to paint with and its configuration: by default the embedded model.

    Raises:
        typer.BadParameter: If a configuration is given for it.
    """
    if model is not None:
        return model, config
    if config is not None:
        raise typer.BadParameter(f"{config} needs a --model besides", param_hint="--config")
    return CHECKPOINT, CONFIG
