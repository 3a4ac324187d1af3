"""Infotexts beside the pixels of PNG, JPEG, WebP and GIF.

Nothing else is read: readers of pictures can be made to take any amount of time and memory by a
small file.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lazyneg.painting import encodings

LARGEST_TEXT = 1 << 22
"""Bytes that a text may have."""

_MOST_BLOCKS = 1 << 20
"""A picture of many gigabytes has as many."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286

_Found = Iterator[tuple[str, bytes]]
"""What there is, ``exif``, ``parameters`` or ``comment``, and its bytes; the last one counts."""


def infotext_of(path: Path) -> str | None:
    """The infotext of a picture, from where the WebUI reads it; ``None`` if it is no picture.

    Raises:
        OSError: If it cannot be read.
        ValueError: If a text is broken or too large.
    """
    with path.open("rb") as file:
        start = file.read(12)
        reader = next((read for magic, read in _READERS.items() if re.match(magic, start)), None)
        if reader is None:
            return None
        file.seek(0)
        found = dict(reader(file))
    comment = encodings.user_comment(_user_comment(found.get("exif", b"")))
    texts = (found.get(name, b"").decode("utf-8", "replace") for name in ("parameters", "comment"))
    text = next(filter(None, (comment.strip("\0 \n"), *texts)), "")
    return encodings.without_marks(text).strip()


def _blocks(file: BinaryIO, head: str) -> Iterator[tuple[Any, ...]]:
    """Numbers and names at the begin of each block, until the picture ends."""
    size = struct.calcsize(head)
    for _ in range(_MOST_BLOCKS):
        start = file.read(size)
        if len(start) < size:
            return
        yield struct.unpack(head, start)
    raise ValueError(f"it has more than {_MOST_BLOCKS} parts")


def _png(file: BinaryIO) -> _Found:
    file.seek(8)
    for size, kind in _blocks(file, ">I4s"):
        if kind == b"eXIf":
            yield "exif", _read(file, size)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            name, _, rest = _read(file, size).partition(b"\0")
            if name == b"parameters":
                yield name.decode(), _png_text(kind, rest)
        else:
            file.seek(size, 1)
        file.seek(4, 1)


def _png_text(kind: bytes, data: bytes) -> bytes:
    """The text of a chunk, behind its name, in UTF-8."""
    if kind == b"iTXt":
        # Behind two bytes for the compression, a language and a translation of the name.
        text = data[2:].split(b"\0", 2)[-1]
        return _inflated(text) if data[:1] == b"\1" else text
    text = _inflated(data[1:]) if kind == b"zTXt" else data
    return text.decode("latin-1").encode()


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, LARGEST_TEXT)
    except zlib.error as error:
        raise ValueError(f"its text is broken: {error}") from error
    if not inflater.eof:
        raise ValueError(f"its text is cut off, or has more than {LARGEST_TEXT} bytes")
    return text


def _jpeg(file: BinaryIO) -> _Found:
    file.seek(2)
    exif = b""
    for mark, kind, size in _blocks(file, ">BBH"):
        # From 0xda on come the pixels.
        if mark != 0xFF or kind == 0xDA or size < 2:
            return
        if kind not in (0xE1, 0xFE):
            file.seek(size - 2, 1)
            continue
        body = _read(file, size - 2)
        if kind == 0xFE:
            yield "comment", body
        elif body.startswith(b"Exif\0\0") and len(exif) < LARGEST_TEXT:
            # What is too long for one segment goes on in the next.
            exif += body[6:]
            yield "exif", exif


def _webp(file: BinaryIO) -> _Found:
    file.seek(12)
    for kind, size in _blocks(file, "<4sI"):
        if kind == b"EXIF":
            yield "exif", _read(file, size).removeprefix(b"Exif\0\0")
        else:
            file.seek(size, 1)
        file.seek(size % 2, 1)


def _gif(file: BinaryIO) -> _Found:
    (flags,) = file.read(13)[10:11] or b"\0"
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, 1)
    # Up to the first picture there are extensions, each in parts up to an empty one.
    comment: bytes | None = None
    inside = False
    for (byte,) in _blocks(file, "B"):
        if inside and byte:
            part = _read(file, byte)
            if comment is not None and len(comment) < LARGEST_TEXT:
                comment += part
        elif inside:
            inside = False
            if comment:
                yield "comment", comment
        elif byte == ord("!"):
            inside = True
            comment = b"" if file.read(1) == b"\xfe" else None
        else:
            return


_READERS = {
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"\xff\xd8\xff": _jpeg,
    rb"(?s)RIFF....WEBP": _webp,
    rb"GIF8[79]a": _gif,
}
"""By patterns of what files begin with."""


def _read(file: BinaryIO, size: int) -> bytes:
    if size > LARGEST_TEXT:
        raise ValueError(f"it has a text or EXIF of {size} bytes")
    data = file.read(size)
    if len(data) < size:
        raise ValueError("it ends in the middle of a text")
    return data


def _user_comment(exif: bytes) -> bytes:
    """EXIF's UserComment, nothing if there is none."""
    order = ">" if exif.startswith(b"MM") else "<"
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        _, second = _entry(exif, order, first, _EXIF_IFD)
        size, at = _entry(exif, order, second, _USER_COMMENT)
    except (LookupError, struct.error):
        return b""
    return exif[at : at + size]


def _entry(exif: bytes, order: str, at: int, wanted: int) -> tuple[int, int]:
    """Count and value of a tag in the directory at a place.

    Raises:
        LookupError: If it is not there.
        struct.error: If the directory is not.
    """
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, length, value = struct.unpack_from(f"{order}HHII", exif, place)
        if tag == wanted:
            return length, value
    raise LookupError
