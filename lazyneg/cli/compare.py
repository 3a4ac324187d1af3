"""`lazyneg compare`: one request with the negative prompt at once, delayed, and without it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lazyneg.cli import options
from lazyneg.core.settings import Settings, SettingsError
from lazyneg.painting import infotext, pictures
from lazyneg.painting.infotext import Infotext


def compare(
    prompt: Annotated[str | None, typer.Argument(help="What to paint.")] = None,
    negative: Annotated[str | None, typer.Option(help="What not to paint.")] = None,
    critical_step: Annotated[
        int | None,
        typer.Option(help="First step, counted from 0, with the negative prompt.  [default: 5]"),
    ] = None,
    unit: options.UnitOption = None,
    stop_step: Annotated[
        int | None, typer.Option(help="First step without the negative prompt again.")
    ] = None,
    early_prompt: Annotated[
        str | None, typer.Option(help="Negative prompt of the steps before the critical one.")
    ] = None,
    model: options.ModelOption = None,
    config: options.ConfigOption = None,
    embedding: options.EmbeddingOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="PNG or text with infotext to start from, as the WebUI writes it. A text can "
            "have several. Arguments given besides overrule it.",
        ),
    ] = None,
    steps: options.StepsOption = None,
    sampler: options.SamplerOption = None,
    guidance_scale: options.GuidanceOption = None,
    seed: Annotated[
        int | None,
        typer.Option(
            callback=options.within(0, 10**options.SEED_DIGITS - 1), help="[default: random]"
        ),
    ] = None,
    width: options.SideOption = None,
    height: options.SideOption = None,
    output: options.OutputOption = Path("compare"),
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
) -> None:
    """Paint with the negative prompt from the start, delayed, and without it.

    Writes plain.png, delayed.png and empty.png with infotext, and compare.png with all three
    side by side.
    """
    files = options.model_files(model, config)
    parameters = options.webui_parameters(steps, sampler, guidance_scale, width, height)
    if seed is not None:
        parameters["Seed"] = str(seed)
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
    # Only now, as it takes seconds.
    from lazyneg.painting.models import ModelError
    from lazyneg.painting.painter import Painter

    try:
        painter = Painter(*files, embedding or [], device, dtype and dtype.value)
        output.mkdir(parents=True, exist_ok=True)
        for number, (job, settings) in enumerate(jobs, 1):
            prefix = f"{number}-" if len(jobs) > 1 else ""
            made = {
                "plain": painter.paint(job, Settings(), "plain"),
                "delayed": painter.paint(job, settings, "delayed"),
                "empty": painter.paint(replace(job, negative=""), Settings(), "empty"),
            }
            plain = replace(settings, critical_step=0, stop_step=0)
            labels = [pictures.label(one) for one in (plain, settings, None)]
            row = pictures.side_by_side(
                [(label, picture) for label, (picture, _) in zip(labels, made.values())]
            )
            for name, (picture, text) in {**made, "compare": (row, made["delayed"][1])}.items():
                path = output / f"{prefix}{name}.png"
                pictures.save(picture, path, str(text))
                typer.echo(path)
    except (ModelError, OSError) as error:
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
    defaults = {**options.DEFAULTS, "Seed": str(random.getrandbits(32))}
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
    "Seed": f"[0-9]{{1,{options.SEED_DIGITS}}}",
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
