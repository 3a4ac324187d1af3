"""Contact sheets: the pictures of a section, settings by seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 16
"""More seeds than that do not fit on a screen."""
_SIDE = 192
_GAP = 4
_MARK = 5
_FOUND = "#d95f02"


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Path], Sequence[bool]]], seeds: Sequence[int]
) -> Image.Image:
    """Draws a contact sheet.

    Args:
        rows: For each its label, its pictures (all of one size), and for each picture whether the
            object was found in it, which a bar below it shows.
        seeds: The labels of the columns.
    """
    with Image.open(rows[0][1][0]) as first:
        scale = min(1, _SIDE / max(first.size))
        width, height = (max(1, round(side * scale)) for side in first.size)
    size = max(13, min(width, height) // 5)
    font = ImageFont.load_default(size)
    left = 2 * size + round(max(font.getlength(label) for label, _, _ in rows))
    top = 2 * size
    step = (width + _GAP, height + _GAP + _MARK)
    sheet = Image.new("RGB", (left + step[0] * len(seeds), top + step[1] * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, seed in enumerate(seeds):
        center = left + column * step[0] + width / 2
        label = f"seed {seed}" if column == 0 else str(seed)
        draw.text((center, top / 2), label, "black", font, anchor="mm")
    for index, (label, paths, found) in enumerate(rows):
        y = top + index * step[1]
        draw.text((left - size, y + height / 2), label, "black", font, anchor="rm")
        for column, (path, has) in enumerate(zip(paths, found, strict=True)):
            x = left + column * step[0]
            with Image.open(path) as picture:
                sheet.paste(picture.convert("RGB").resize((width, height)), (x, y))
            if has:
                draw.rectangle((x, y + height, x + width - 1, y + height + _MARK - 2), _FOUND)
    return sheet
