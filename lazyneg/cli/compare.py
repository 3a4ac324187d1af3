"""`lazyneg compare`: one request with the negative prompt at once, delayed, and without it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lazyneg.cli import options
from lazyneg.core import tag
from lazyneg.core.settings import ERROR_KEY, SETTINGS, VERSION_KEY, Settings, SettingsError
from lazyneg.core.tag import Picture
from lazyneg.painting import infotext
from lazyneg.painting.infotext import Infotext

if TYPE_CHECKING:
    from PIL.Image import Image

    from lazyneg.painting.painter import Painter


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
    area: Annotated[
        int | None,
        typer.Option(
            help="Percent of the picture in which it acts: where it changes most.  [default: 100]"
        ),
    ] = None,
    adaptive: Annotated[
        bool | None,
        typer.Option(
            "--adaptive/--no-adaptive",
            help="Let it act only while what it names shows there.  [default: no-adaptive]",
        ),
    ] = None,
    model: options.ModelOption = None,
    config: options.ConfigOption = None,
    embedding: options.EmbeddingOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Picture or text with infotext to start from, as the WebUI writes it. A text can "
            "have several. Arguments given besides overrule it.",
        ),
    ] = None,
    steps: options.StepsOption = None,
    sampler: options.SamplerOption = None,
    schedule: options.ScheduleOption = None,
    guidance_scale: options.GuidanceOption = None,
    seed: Annotated[
        int | None,
        typer.Option(callback=options.within(0, options.LARGEST_SEED), help="[default: random]"),
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
    parameters = options.webui_parameters(steps, sampler, schedule, guidance_scale, width, height)
    if seed is not None:
        parameters["Seed"] = str(seed)
    delay = {
        "critical_step": critical_step,
        "unit": unit and unit.value,
        "stop_step": stop_step,
        "early_prompt": early_prompt,
        "area": area,
        "adaptive": adaptive,
    }
    jobs = [
        (job, _settings(job, delay))
        for start in _starts(source)
        for job in [_job(start, prompt, negative, parameters)]
    ]
    # Only now, as it takes seconds.
    from lazyneg.painting import pictures
    from lazyneg.painting.models import ModelError
    from lazyneg.painting.painter import Painter

    try:
        painter = Painter(*files, embedding or [], device, dtype and dtype.value)
        output.mkdir(parents=True, exist_ok=True)
        for number, (job, settings) in enumerate(jobs, 1):
            prefix = f"{number}-" if len(jobs) > 1 else ""
            for name, (picture, text) in _painted(painter, job, settings).items():
                path = output / f"{prefix}{name}.png"
                pictures.save(picture, path, str(text))
                typer.echo(path)
    except (ModelError, OSError) as error:
        raise options.failed(error) from error


def _painted(
    painter: Painter, job: Infotext, settings: Settings
) -> dict[str, tuple[Image, Infotext]]:
    """The pictures of one job by the names of their files, and their infotexts."""
    from lazyneg.painting import pictures, samplers

    problems = tag.misuses(job.prompt, job.negative)
    text, tags = tag.cut(job.prompt)
    try:
        # The tag decides when, and nothing else.
        tagged = replace(Picture.of(settings, tags).first, hires=settings.hires)
    except SettingsError as error:
        problems.append(str(error))
        tagged = settings
    for problem in problems:
        options.say(f"Lazy Negative ignores a tag: {problem}")
    told = {ERROR_KEY: "; ".join(problems)} if problems else {}

    def painted(title: str, negative: str, when: Settings, prompt: str) -> tuple[Image, Infotext]:
        picture, made = painter.paint(
            replace(job, prompt=text.strip(), negative=negative), when, title
        )
        return picture, replace(made, prompt=prompt, parameters={**made.parameters, **told})

    # In the order in which they have most in common. With its tag plain and empty would be delayed
    # where they are made again.
    with painter.sharing():
        empty = painted("empty", "", Settings(), text.strip())
        delayed = painted("delayed", job.negative, tagged, job.prompt)
        plain = painted("plain", job.negative, Settings(), text.strip())
    made = {"plain": plain, "delayed": delayed, "empty": empty}
    sampler = plain[1].parameters["Sampler"]
    if sampler not in samplers.SAMPLERS:
        options.say(
            f"the WebUI has no sampler like this model's {sampler}, and takes another for it; "
            "--sampler takes one of the WebUI's"
        )
    always = replace(tagged, critical_step=0, stop_step=0, area=100, adaptive=False)
    labels = [pictures.label(one) for one in (always, tagged, None)]
    row = pictures.side_by_side(
        [(label, picture) for label, (picture, _) in zip(labels, made.values())]
    )
    return {**made, "compare": (row, made["delayed"][1])}


def _starts(source: Path | None) -> list[Infotext]:
    """The infotexts in a file; an empty one without a file."""
    if source is None:
        return [Infotext("")]
    from lazyneg.painting import reading

    try:
        texts = reading.infotexts(source)
    except reading.ReadingError as error:
        raise typer.BadParameter(options.printable(str(error)), param_hint="--from") from error
    starts = []
    for text in texts:
        if after := infotext.rest(text):
            options.say(f"{source}: left out, as it comes after the parameters: {_short(after)}")
        start = infotext.parse(text)
        if unknown := [
            f"{name} {_short(value)}"
            for name, value in start.parameters.items()
            if _UNTOLD.get(name, value) != value or not (name in _KNOWN or name in _UNTOLD)
        ]:
            options.say(f"{source}: left out, as it is not painted: {', '.join(unknown)}")
        starts.append(start)
    return starts


def _job(
    start: Infotext, prompt: str | None, negative: str | None, parameters: dict[str, str]
) -> Infotext:
    """What to paint: an infotext, and what the command line says besides."""
    defaults = {**options.DEFAULTS, "Seed": str(random.getrandbits(32))}
    job = Infotext(
        start.prompt if prompt is None else prompt,
        start.negative if negative is None else negative,
        {**defaults, **_start_parameters(start, parameters), **parameters},
    )
    for text, hint in ((job.prompt, "PROMPT"), (job.negative, "--negative")):
        if not text:
            raise typer.BadParameter("give one, or --from a file that has one", param_hint=hint)
        options.check_text(text, hint)
    for name, (pattern, allowed) in _ALLOWED.items():
        value = job.parameters.get(name)
        if value is not None and not re.fullmatch(pattern, value):
            raise typer.BadParameter(
                f"{name} is {_short(value)}; allowed: {allowed}", param_hint="--from"
            )
    if int(job.parameters["Seed"]) > options.LARGEST_SEED:
        raise typer.BadParameter(
            f"Seed is {job.parameters['Seed']!r}; allowed: {_ALLOWED['Seed'][1]}",
            param_hint="--from",
        )
    return job


def _start_parameters(start: Infotext, given: Mapping[str, str]) -> dict[str, str]:
    """The parameters of an infotext, with a schedule type that goes with the sampler given."""
    from lazyneg.painting import samplers

    found = dict(start.parameters)
    sampler, schedule = samplers.split_name(
        found.pop("Sampler", ""), found.pop("Schedule type", "")
    )
    if "Sampler" in given and "Schedule type" not in given and schedule not in ("", "Automatic"):
        try:
            samplers.schedule_type(given["Sampler"], schedule)
        except (KeyError, ValueError):
            options.say(
                f"left out, as the sampler given cannot have it: the schedule type {schedule}"
            )
            schedule = ""
    named = {"Sampler": sampler, "Schedule type": schedule}
    return {**found, **{name: value for name, value in named.items() if value}}


_ALLOWED = {
    "Steps": ("[1-9][0-9]{0,3}|10000", f"1 to {options.MOST_STEPS}"),
    "CFG scale": (r"[0-9]{1,4}(\.[0-9]{1,18})?", "such as 7 or 7.5"),
    "Seed": ("[0-9]{1,20}", f"0 to {options.LARGEST_SEED}"),
    "Size": ("[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", "such as 512x768"),
    "Clip skip": ("[1-9]|1[0-2]", "1 to 12"),
}
"""What is painted with, as patterns and in words."""

_KNOWN = {
    *_ALLOWED,
    "Sampler",
    "Schedule type",
    "Model",
    "Model hash",
    "Version",
    *(setting.infotext for setting in SETTINGS),
    VERSION_KEY,
    ERROR_KEY,
}
_UNTOLD = {"Beta schedule alpha": "0.6", "Beta schedule beta": "0.6", "RNG": "CPU"}
"""Parameters that change nothing if they have these values."""


def _short(value: str) -> str:
    """A value as messages show it."""
    return repr(value if len(value) <= 60 else f"{value[:60]}…")


def _settings(job: Infotext, delay: Mapping[str, object]) -> Settings:
    """The delay that an infotext has, and what the command line says besides."""
    given = {name: value for name, value in delay.items() if value is not None}
    if tag.cut(job.prompt)[1] and given.keys() - {*tag.KEPT}:
        options.say(
            "the prompt has a <lazyneg:…> tag: it decides in place of the options for steps"
        )
    try:
        before = Settings.from_infotext(job.parameters)
        if before.enabled and "unit" in given:
            steps = int(job.parameters["Steps"])
            before = before.in_unit(str(given["unit"]), steps, steps)
        values = {name: getattr(before, name) for name in delay} if before.enabled else {}
        return Settings.parse({"enabled": True, **values, **given})
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from error
