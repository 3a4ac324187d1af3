"""`lazyneg webui-model`: the embedded model as a checkpoint of a WebUI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lazyneg.cli import options


def webui_model(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The WebUI's folder models/Stable-diffusion.", exists=True, file_okay=False
        ),
    ],
) -> None:
    """Copy the embedded model to where AUTOMATIC1111's WebUI looks for checkpoints.

    Three things: the checkpoint, its configuration, and the folder with its tokenizer.
    """
    # Only now, as it takes seconds.
    from lazyneg.demo.checkpoint import copy_to

    try:
        copied = copy_to(folder)
    except OSError as error:
        raise options.failed(error) from error
    typer.echo(copied)
