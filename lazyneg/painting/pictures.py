"""Pictures with infotext, and side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

_MARGIN = 8


def side_by_side(pictures: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures of one size in a row, each under its label."""
    width, height = next(iter(pictures.values())).size
    size = max(10, width // 20)
    font = ImageFont.load_default(size)
    band = size + 2 * _MARGIN
    row = Image.new("RGB", (width * len(pictures), height + band), "white")
    draw = ImageDraw.Draw(row)
    for index, (label, picture) in enumerate(pictures.items()):
        left = index * width
        draw.text((left + width / 2, band / 2), label, "black", font, anchor="mm")
        row.paste(picture, (left, band))
    return row


def save(picture: Image.Image, file: Path | IO[bytes], infotext: str) -> None:
    """Writes a PNG that the WebUI can read the parameters of."""
    info = PngImagePlugin.PngInfo()
    if infotext.isascii():
        info.add_text("parameters", infotext)
    else:
        info.add_itxt("parameters", infotext)
    picture.save(file, "png", pnginfo=info)


def infotext_of(path: Path) -> str | None:
    """The parameters in a PNG, if there are any."""
    with Image.open(path) as picture:
        parameters = picture.info.get("parameters")
    return parameters if isinstance(parameters, str) else None
