"""Pictures with infotext, and side by side."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, ImageDraw, ImageFont, PngImagePlugin

from lazyneg.core.settings import Settings
from lazyneg.painting import encodings

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


def infotext_of(path: Path) -> str | None:
    """The infotext of a picture, from where the WebUI reads it, if there is any.

    Raises:
        UnidentifiedImageError: If it is no picture.
        OSError: If it cannot be read.
        ValueError: If it is broken or too large.
    """
    try:
        with warnings.catch_warnings():
            # Of its size: only the text is wanted.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF"))
        with picture:
            return _infotext_of(picture)
    except (OSError, ValueError):
        raise
    except Exception as error:
        # Readers of pictures raise whatever comes to their mind.
        raise ValueError(f"it is a broken picture: {error}") from error


def _infotext_of(picture: Image.Image) -> str | None:
    texts = picture.info
    if picture.format == "PNG" and not texts.keys() & {"parameters", "exif"}:
        # Text may stand behind the pixels.
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and picture.width * picture.height > limit:
            raise ValueError(
                f"it has no infotext before its pixels, and {picture.width} x {picture.height} "
                "are too many to look behind them"
            )
        picture.load()
    exif = picture.getexif().get_ifd(ExifTags.IFD.Exif) if "exif" in texts else {}
    text = exif.get(ExifTags.Base.UserComment, b"")
    if isinstance(text, bytes):
        text = encodings.user_comment(text)
    # GIF has a comment.
    text = text.strip("\0 \n") or texts.get("parameters") or texts.get("comment") or ""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return encodings.without_marks(text).strip() or None
