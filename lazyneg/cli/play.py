"""`lazyneg play`: a local web page to try a delay on."""

from __future__ import annotations

from typing import Annotated

import typer

from lazyneg.cli import options


def play(
    model: options.ModelOption = None,
    config: options.ConfigOption = None,
    embedding: options.EmbeddingOption = None,
    width: options.SideOption = None,
    height: options.SideOption = None,
    device: options.DeviceOption = None,
    dtype: options.DTypeOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(callback=options.within(1, 65535), help="[default: the first free from 7860]"),
    ] = None,
) -> None:
    """Open a web page on this machine that paints with, without and with a delayed negative prompt.

    Nothing is fetched from elsewhere, and nobody else sees it.
    """
    files = options.model_files(model, config)
    size = options.webui_parameters(None, None, None, None, width, height)
    # Only now, as it takes seconds.
    try:
        from lazyneg.play.page import serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise options.failed("gradio is missing: pip install 'lazyneg[play]'") from error

    from lazyneg.painting.models import ModelError
    from lazyneg.painting.painter import Painter
    from lazyneg.play.session import Session

    given = [
        *([("--model", model.resolve())] if model else []),
        *([("--config", config.resolve())] if config else []),
        *(("--embedding", path.resolve()) for path in embedding or []),
        *([("--device", device)] if device else []),
        *([("--dtype", dtype.value)] if dtype else []),
    ]
    try:
        painter = Painter(*files, embedding or [], device, dtype and dtype.value)
        blocks = serve(Session(painter, size, given), host, port)
    except (ModelError, OSError) as error:
        raise options.failed(error) from error
    typer.echo(f"Open {blocks.local_url} in a browser. Ctrl+C ends it.")
    blocks.block_thread()
