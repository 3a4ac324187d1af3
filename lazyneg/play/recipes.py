"""How the delayed picture of a row is made without the page."""

from __future__ import annotations

import shlex
from pathlib import Path

from lazyneg.core.settings import SETTINGS, Settings
from lazyneg.painting.models import DTYPE
from lazyneg.play.session import Row, Session

_OPTIONS = {
    "--steps": "Steps",
    "--sampler": "Sampler",
    "--guidance-scale": "CFG scale",
    "--seed": "Seed",
}
"""Options of the command line, and the WebUI's parameters that they mean."""


def command(session: Session, row: Row) -> str:
    """The command line that makes the picture, as ``delayed.png`` in the folder ``compare``."""
    wanted = row.job.parameters
    options: list[tuple[str, object]] = [
        ("--negative", row.job.negative),
        *((f"--{name.replace('_', '-')}", value) for name, value in _given(row.settings).items()),
        *((option, wanted[name]) for option, name in _OPTIONS.items() if name in wanted),
        *zip(("--width", "--height"), wanted.get("Size", "").split("x")),
        *session.options,
    ]
    words = [
        option if value is True else f"{option}={shlex.quote(str(value))}"
        for option, value in options
        if value != ""
    ]
    return " ".join(["lazyneg compare", *words, "--", shlex.quote(row.job.prompt)])


def python(session: Session, row: Row) -> str:
    """Lines of Python that end with the picture in ``image``.

    Args:
        session: Who painted the row, and nothing after it.
        row: The row.
    """
    painter, job = session.painter, row.job
    seed = int(job.parameters["Seed"])
    given = _given(painter.of_the_loop(row.settings, job.parameters))
    delay = ", ".join(f"{name}={value!r}" for name, value in given.items())
    call = painter.arguments(job, [seed]) | {
        "prompt": job.prompt,
        "negative_prompt": job.negative,
    }
    del call["generator"]
    return "\n".join(
        (
            "import torch",
            "import lazyneg",
            *_pipeline(session, row),
            f"lazyneg.apply(pipe, {delay})",
            "image = pipe(",
            *(f"    {name}={value!r}," for name, value in call.items()),
            f'    generator=torch.Generator("cpu").manual_seed({seed}),',
            ").images[0]",
        )
    )


def _given(settings: Settings) -> dict[str, object]:
    """The settings that tell a delay: the critical step, and what is not the default."""
    return {
        setting.name: getattr(settings, setting.name)
        for setting in SETTINGS
        if setting.name == "critical_step"
        or (setting.name != "enabled" and getattr(settings, setting.name) != setting.default)
    }


def _pipeline(session: Session, row: Row) -> list[str]:
    """Lines that load the pipeline, with its embeddings and sampler."""
    pipe, files, wanted = session.painter.pipe, session.painter.files, row.job.parameters
    model = files["Model"]
    if session.embedded and str(pipe.dtype) == "torch.float32":
        lines = ["from lazyneg.demo import pipeline", "pipe = pipeline()"]
    else:
        folder = model.is_dir()
        kind = "DiffusionPipeline" if folder else type(pipe).__name__
        load = "from_pretrained" if folder else "from_single_file"
        config = f", config={_literal(files['Config'])}" if "Config" in files else ""
        lines = [
            f"from diffusers import {kind}",
            f"pipe = {kind}.{load}({_literal(model)}, {DTYPE}={pipe.dtype}{config})",
        ]
    if pipe.device.type != "cpu":
        lines.append(f"pipe.to({str(pipe.device)!r})")
    embeddings = [path for name, path in files.items() if name.startswith("Embedding ")]
    if embeddings:
        lines += [
            "from pathlib import Path",
            "from lazyneg.painting.models import load_embeddings",
            f"load_embeddings(pipe, map(Path, [{', '.join(map(_literal, embeddings))}]))",
        ]
    if "Sampler" in wanted:
        lines += [
            "from lazyneg.painting.models import set_sampler",
            f'set_sampler(pipe, {wanted["Sampler"]!r}, "", {wanted["Steps"]})',
        ]
    if hasattr(pipe.scheduler, "noise_sampler_seed"):
        lines.append(f"pipe.scheduler.noise_sampler_seed = [{wanted['Seed']}]")
    return lines


def _literal(path: Path) -> str:
    return repr(str(path.resolve()))
