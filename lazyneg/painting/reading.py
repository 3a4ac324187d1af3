"""Infotexts from the files that people have."""

from __future__ import annotations

from pathlib import Path

from lazyneg.painting import encodings, infotext, metadata

_LARGEST_PICTURE = 1 << 28
_ALLOWED = (
    "a PNG, JPEG, WebP or GIF with infotext as the WebUI writes it, of up to "
    f"{_LARGEST_PICTURE >> 20} MB, or text in UTF-8 or UTF-16, of up to "
    f"{metadata.LARGEST_TEXT >> 20} MB"
)


class ReadingError(Exception):
    """A file has nothing to start from. The message says which, what it is, and what is allowed."""


def infotexts(path: Path) -> list[str]:
    """The infotexts in a file: at most one in a picture, any number in a text.

    Raises:
        ReadingError: If there are none.
    """
    try:
        found = _infotexts(path)
    except (OSError, ValueError) as error:
        raise ReadingError(f"cannot read {path}: {error}; allowed: {_ALLOWED}") from error
    if not found:
        raise ReadingError(f"there is no infotext in {path}; allowed: {_ALLOWED}")
    return found


def _infotexts(path: Path) -> list[str]:
    size = path.stat().st_size
    # What is no file, such as a pipe, may never end.
    if not path.is_file():
        raise ValueError("it is not a file")
    if size > _LARGEST_PICTURE:
        raise ValueError(f"it has {size} bytes")
    text = metadata.infotext_of(path)
    if text is not None:
        return [text] if text else []
    if size > metadata.LARGEST_TEXT:
        raise ValueError(f"it is no picture, and has {size} bytes")
    try:
        return infotext.split(encodings.decoded(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"it is neither picture nor text: {error}") from error
