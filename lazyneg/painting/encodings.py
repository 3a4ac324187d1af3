"""Text in the encodings that editors, shells and cameras write."""

from __future__ import annotations

import codecs
import re

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks, the longer before those they begin with."""


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with lines that end in a line feed.

    Raises:
        ValueError: If it is no such text.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            text = data.decode(encoding)
            break
    else:
        # Of most letters, and of every line of parameters, one byte in UTF-16 is zero.
        zeros = data.count(0) * 50 > len(data)
        text = utf16(data, "strict") if zeros else data.decode("utf-8")
    if control := re.search(r"[\0-\x08]", text):
        raise ValueError(f"it has the character {control[0]!r}")
    return without_marks(text.replace("\r\n", "\n").replace("\r", "\n"))


def utf16(data: bytes, errors: str) -> str:
    """UTF-16 in the byte order of its mark, or in that which makes most high bytes zero."""
    for mark, encoding in _MARKS.items():
        if encoding.startswith("utf-16") and data.startswith(mark):
            return data.decode(encoding, errors)
    little = data[1::2].count(0) > data[::2].count(0)
    return data.decode("utf-16-le" if little else "utf-16-be", errors)


def user_comment(comment: bytes) -> str:
    """The text of EXIF's UserComment: eight bytes that tell the encoding, and the text."""
    code, text = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        return utf16(text, "replace")
    if code == b"JIS\0\0\0\0\0":
        return text.decode("shift_jis", "replace")
    if code in (b"ASCII\0\0\0", bytes(8)):
        return text.decode("utf-8", "replace")
    return comment.decode("utf-8", "replace")


def without_marks(text: str) -> str:
    """A text without byte order marks: files that were put together have some inside."""
    return re.sub("^\ufeff+", "", text, flags=re.MULTILINE)
