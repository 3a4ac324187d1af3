"""Infotexts from the files that people have: pictures, and texts in several encodings."""

from __future__ import annotations

import codecs
import io
import re
import warnings
from pathlib import Path

from PIL import ExifTags, Image

from lazyneg.painting import infotext

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_LARGEST_TEXT = 1 << 22
_LARGEST_PICTURE = 1 << 28
_ALLOWED = (
    "a PNG, JPEG, WebP or GIF with infotext as the WebUI writes it, or text in UTF-8 or UTF-16 of "
    f"up to {_LARGEST_TEXT >> 20} MB"
)
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks, the longer before those they begin with."""


class ReadingError(Exception):
    """A file has nothing to start from. The message says which, what it is, and what is allowed."""


def infotexts(path: Path) -> list[str]:
    """The infotexts in a file: at most one in a picture, any number in a text.

    Raises:
        ReadingError: If there are none.
    """
    try:
        # What is no file, such as a pipe, may never end.
        if path.exists() and not path.is_file():
            raise ReadingError(f"{path} is not a file; allowed: {_ALLOWED}")
        with path.open("rb") as file:
            data = file.read(_LARGEST_PICTURE + 1)
    except OSError as error:
        raise ReadingError(f"cannot read {path}: {error}") from error
    if len(data) > _LARGEST_PICTURE:
        raise ReadingError(
            f"{path} has more than {_LARGEST_PICTURE >> 20} MB; allowed: {_ALLOWED}"
        )
    picture = _opened(path, data)
    if picture is None:
        found = infotext.split(_decoded(path, data))
    else:
        with picture:
            text = _of_picture(path, picture)
        found = [text] if text else []
    if not found:
        raise ReadingError(f"there is no infotext in {path}; allowed: {_ALLOWED}")
    return found


def _opened(path: Path, data: bytes) -> Image.Image | None:
    """The picture that the bytes are; ``None`` if they are none."""
    with warnings.catch_warnings():
        # Of its size: only the text is wanted.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=_FORMATS)
        except Image.UnidentifiedImageError:
            return None
        except Exception as error:
            # Readers of pictures raise whatever comes to their mind.
            raise ReadingError(f"{path} is a broken picture: {error}; allowed: {_ALLOWED}") from error


def _of_picture(path: Path, picture: Image.Image) -> str:
    """The infotext of a picture, where the WebUI looks for it; empty if there is none."""
    texts = picture.info
    try:
        if picture.format == "PNG" and not texts.keys() & {"parameters", "exif"}:
            # The text may stand behind the pixels.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and picture.width * picture.height > limit:
                raise ReadingError(
                    f"{path} has no infotext before its pixels, and {picture.width} x "
                    f"{picture.height} are too many to look behind them; allowed: {_ALLOWED}"
                )
            picture.load()
        exif = picture.getexif().get_ifd(ExifTags.IFD.Exif) if "exif" in texts else {}
    except ReadingError:
        raise
    except Exception as error:
        # Readers of pictures raise whatever comes to their mind.
        raise ReadingError(
            f"{path} is a broken picture: {error}; allowed: {_ALLOWED}"
        ) from error
    text = _of_user_comment(exif.get(ExifTags.Base.UserComment))
    text = text or texts.get("parameters", texts.get("comment", ""))
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return _without_mark(str(text)).strip()


def _of_user_comment(comment: object) -> str:
    """The text of EXIF's UserComment: eight bytes that tell the encoding, and the text."""
    if isinstance(comment, str):
        return _without_mark(comment).strip("\0 \n")
    if not isinstance(comment, bytes):
        return ""
    code, text = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        decoded = _utf16(text)
    elif code == b"JIS\0\0\0\0\0":
        decoded = text.decode("shift_jis", "replace")
    elif code in (b"ASCII\0\0\0", bytes(8)):
        decoded = text.decode("utf-8", "replace")
    else:
        decoded = comment.decode("utf-8", "ignore")
    return _without_mark(decoded).strip("\0 \n")


def _decoded(path: Path, data: bytes) -> str:
    """Text in one of the encodings that editors and shells write."""
    if len(data) > _LARGEST_TEXT:
        raise ReadingError(f"{path} is no picture and has {len(data)} bytes; allowed: {_ALLOWED}")
    try:
        text = next(
            (
                data.removeprefix(mark).decode(encoding)
                for mark, encoding in _MARKS.items()
                if data.startswith(mark)
            ),
            None,
        )
        if text is None:
            text = _utf16(data, "strict") if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadingError(f"{path} is neither picture nor text: {error}; allowed: {_ALLOWED}") from error
    if control := next((character for character in text if character < "\t"), None):
        raise ReadingError(
            f"{path} is neither picture nor text: it has the character {control!r}; allowed: "
            f"{_ALLOWED}"
        )
    return _without_mark(text.replace("\r\n", "\n").replace("\r", "\n"))


def _utf16(data: bytes, errors: str = "replace") -> str:
    """UTF-16 in the byte order of its mark, or where most of the zeros are."""
    for mark, encoding in _MARKS.items():
        if encoding.startswith("utf-16") and data.startswith(mark):
            return data.removeprefix(mark).decode(encoding, errors)
    # Of most letters, and of every line of parameters, the high byte is zero.
    even, odd = data[::2].count(0), data[1::2].count(0)
    if errors == "strict" and max(even, odd) * 50 < len(data):
        raise UnicodeDecodeError("utf-16", data[:0], 0, 0, "too few zeros")
    return data.decode("utf-16-le" if odd > even else "utf-16-be", errors)


def _without_mark(text: str) -> str:
    # Files that were put together have marks in their middle too.
    return re.sub("^\ufeff+", "", text, flags=re.MULTILINE)
