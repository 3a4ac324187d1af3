"""The command line."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

import lazyneg
from lazyneg.cli.compare import compare
from lazyneg.cli.play import play
from lazyneg.cli.sweep import sweep
from lazyneg.cli.webui_model import webui_model

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lazyneg {lazyneg.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Delay the negative prompt of Stable Diffusion until there is something to remove."""
    # No prompt and no path ends a run because a terminal or a file cannot show it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # What the libraries say while loading is of no use here, unless somebody asks for it.
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")


app.command()(compare)
app.command()(play)
app.command()(sweep)
app.command()(webui_model)
