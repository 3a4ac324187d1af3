"""Pictures with infotext, and side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from lazyneg.core.settings import Settings

_MARGIN = 8


def label(settings: Settings | None) -> str:
    """Words for the steps that have the negative prompt; ``None`` is for no step."""
    if settings is None:
        return "no negative"
    suffix = " %" if settings.unit == "percent" else ""
    words = f"from {settings.critical_step}{suffix}"
    if settings.stop_step:
        words += f" until {settings.stop_step}{suffix}"
    return ", ".join(filter(None, (words, choosing(settings))))


def choosing(settings: Settings) -> str:
    """Words for where and while the negative prompt acts; none for everywhere and always."""
    area = f"area {settings.area} %" if settings.area < 100 else ""
    return ", ".join(filter(None, (area, "adaptive" if settings.adaptive else "")))


def side_by_side(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures of one size in a row, each under its label."""
    width, height = pictures[0][1].size
    size = max(10, width // 20)
    font = ImageFont.load_default(size)
    band = size + 2 * _MARGIN
    row = Image.new("RGB", (width * len(pictures), height + band), "white")
    draw = ImageDraw.Draw(row)
    for index, (above, picture) in enumerate(pictures):
        left = index * width
        draw.text((left + width / 2, band / 2), above, "black", font, anchor="mm")
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
