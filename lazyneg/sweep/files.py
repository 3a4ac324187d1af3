"""Files that are either whole or not there."""

from __future__ import annotations

import io
import os
from pathlib import Path

from PIL import Image

_END = b"\0\0\0\0IEND\xaeB`\x82"


def write(path: Path, data: bytes) -> None:
    """Writes a file that is never seen half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a file is a PNG with nothing missing or changed on the way."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            # Checks every chunk up to the closing one.
            picture.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return data.endswith(_END)
