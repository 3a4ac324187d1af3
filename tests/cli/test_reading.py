"""Files as people have them: encodings, and where pictures keep their text."""

from __future__ import annotations

import io
import os
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lazyneg.painting.reading import ReadingError, infotexts

LAST = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x32"
TEXT = f"girl\nNegative prompt: hat\n{LAST}"
JAPANESE = f"女の子, 一\nNegative prompt: 眼鏡 😀\n{LAST}"
USER_COMMENT = (0x8769, 0x9286)


@pytest.mark.parametrize("text", [TEXT, JAPANESE, "girl"])
@pytest.mark.parametrize("lines", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
        (b"\xff\xfe\0\0", "utf-32-le"),
        (b"\0\0\xfe\xff", "utf-32-be"),
    ],
)
def test_texts(tmp_path: Path, text: str, lines: str, mark: bytes, encoding: str) -> None:
    path = tmp_path / "girl.txt"
    path.write_bytes(mark + text.replace("\n", lines).encode(encoding))
    assert infotexts(path) == [text]


def test_texts_that_were_put_together(tmp_path: Path) -> None:
    path = tmp_path / "both.txt"
    path.write_bytes(2 * f"\ufeff{TEXT}\r\n\r\n".encode())
    assert infotexts(path) == [TEXT, TEXT]


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A picture with further chunks before or behind its pixels."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "png")
    data = file.getvalue()
    at = data.rindex(b"IEND") - 4 if behind else data.index(b"IDAT") - 4
    more = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:at] + more + data[at:]


CHUNKS = {
    "tEXt": (b"tEXt", b"parameters\0" + TEXT.encode()),
    "zTXt": (b"zTXt", b"parameters\0\0" + zlib.compress(TEXT.encode())),
    "iTXt": (b"iTXt", b"parameters\0\0\0\0\0" + TEXT.encode()),
    "compressed iTXt": (b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(TEXT.encode())),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", CHUNKS)
def test_text_before_and_behind_the_pixels(tmp_path: Path, kind: str, behind: bool) -> None:
    # Whatever its name says, and with other texts before.
    path = tmp_path / "girl.txt"
    path.write_bytes(png((b"tEXt", b"Title\0none"), CHUNKS[kind], behind=behind))
    assert infotexts(path) == [TEXT]


def test_a_broken_picture_has_its_text_still(tmp_path: Path) -> None:
    whole = png(CHUNKS["tEXt"])
    path = tmp_path / "half.png"
    path.write_bytes(whole[: len(whole) // 2])
    assert infotexts(path) == [TEXT]


@pytest.mark.parametrize("name", ["x.jpg", "x.webp", "x.png"])
@pytest.mark.parametrize(
    ("code", "encoding", "text"),
    [
        (b"UNICODE\0", "utf-16-be", JAPANESE),
        (b"UNICODE\0", "utf-16-le", JAPANESE),
        (b"UNICODE\0", "utf-16", JAPANESE),
        (b"UNICODE\0", "utf-16-be", TEXT),
        (b"ASCII\0\0\0", "ascii", TEXT),
        (bytes(8), "utf-8", JAPANESE),
        (b"", "utf-8", JAPANESE),
        (b"JIS\0\0\0\0\0", "shift_jis", JAPANESE.replace(" 😀", "")),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_exif(tmp_path: Path, name: str, code: bytes, encoding: str, text: str, order: str) -> None:
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif.get_ifd(USER_COMMENT[0])[USER_COMMENT[1]] = code + text.encode(encoding)
    Image.new("RGB", (8, 8)).save(tmp_path / name, exif=exif.tobytes())
    assert infotexts(tmp_path / name) == [text]


def test_exif_goes_before_the_text_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(USER_COMMENT[0])[USER_COMMENT[1]] = b"ASCII\0\0\0" + TEXT.encode()
    info = PngInfo()
    info.add_text("parameters", "cat")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", exif=exif.tobytes(), pnginfo=info)
    assert infotexts(tmp_path / "x.png") == [TEXT]
    exif.get_ifd(USER_COMMENT[0])[USER_COMMENT[1]] = b"UNICODE\0"
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", exif=exif.tobytes(), pnginfo=info)
    assert infotexts(tmp_path / "x.png") == ["cat"]


def test_the_comment_of_a_gif(tmp_path: Path) -> None:
    Image.new("P", (8, 8)).save(tmp_path / "x.gif", comment=JAPANESE.encode())
    assert infotexts(tmp_path / "x.gif") == [JAPANESE]


def test_a_picture_has_one_infotext(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", f"{TEXT}\n\n{TEXT}")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    assert infotexts(tmp_path / "x.png") == [f"{TEXT}\n\n{TEXT}"]


def bomb() -> bytes:
    """A few bytes that say they are a very large picture."""
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    made = png()
    at = made.index(b"IHDR") + 4
    return made[:at] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + made[at + 17 :]


BROKEN = {
    "empty.txt": (b" \n", "there is no infotext in"),
    "bare.png": (png(), "there is no infotext in"),
    "latin.txt": ("fiancée".encode("latin-1"), "neither picture nor text: 'utf-8' codec"),
    "zeros.bin": (bytes(1000), "neither picture nor text: it has the character '\\x00'"),
    "zero.txt": (TEXT.encode() + b"\0", "it has the character '\\x00'"),
    "odd.txt": (TEXT.encode("utf-16-le")[:-1], "neither picture nor text: 'utf-16-le' codec"),
    "mark.txt": (b"\xff\xfe\0\xd8x\0", "neither picture nor text: 'utf-16-le' codec"),
    "long.txt": (b"girl " * 1_000_000, "it is no picture, and has 5000000 bytes"),
    "bomb.png": (bomb(), "there is no infotext in"),
    "parts.gif": (b"GIF89a" + bytes(7) + b"!\xf9\1x\0" * (1 << 19), "more than 1048576 parts"),
    "long.png": (png((b"tEXt", b"parameters\0" + b"x" * (1 << 22))), "a text or EXIF of 4194315"),
    "broken.png": (png((b"zTXt", b"parameters\0\0??????")), "its text is broken"),
    "cut.png": (png((b"zTXt", b"parameters\0\0" + zlib.compress(b"girl")[:8])), "its text is cut"),
    "half.jpg": (b"\xff\xd8\xff\xfe\0\x20girl", "it ends in the middle of a text"),
    "text-bomb.png": (
        png((b"zTXt", b"parameters\0\0" + zlib.compress(bytes(1 << 26)))),
        "or has more than 4194304 bytes",
    ),
    "half.png": (png()[:200], "there is no infotext in"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_errors_say_which_file_and_what_is_allowed(tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ReadingError) as caught:
        infotexts(tmp_path / name)
    told = str(caught.value)
    assert message in told
    assert str(tmp_path / name) in told
    assert "allowed: a PNG, JPEG, WebP or GIF with infotext" in told


def crowded(tags: int, size: int) -> bytes:
    """EXIF with so many tags that all have the same data: a reader of all of it copies each."""
    at = 8 + 2 + 12 * tags + 4
    entries = b"".join(struct.pack("<HHII", tag, 7, size, at) for tag in range(tags))
    return b"II*\0\10\0\0\0" + struct.pack("<H", tags) + entries + bytes(4 + size)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_a_small_file_takes_no_memory(tmp_path: Path, kind: str) -> None:
    exif = crowded(4000, 100_000)
    file = io.BytesIO()
    if kind == "jpeg":
        Image.new("RGB", (8, 8)).save(file, kind)
        parts = [b"Exif\0\0" + exif[at : at + 60_000] for at in range(0, len(exif), 60_000)]
        segments = (b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
        data = file.getvalue()[:2] + b"".join(segments) + file.getvalue()[2:]
    else:
        Image.new("RGB", (8, 8)).save(file, kind, exif=b"Exif\0\0" + exif)
        data = file.getvalue()
    (tmp_path / "x").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ReadingError, match="there is no infotext in"):
        infotexts(tmp_path / "x")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As large as the file, some times; not 400 MB.
    assert most < 10 * len(data)


def test_other_things_than_files(tmp_path: Path) -> None:
    with pytest.raises(ReadingError, match="No such file"):
        infotexts(tmp_path / "nowhere.png")
    with pytest.raises(ReadingError, match="it is not a file; allowed"):
        infotexts(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    errors: list[ReadingError] = []

    def read() -> None:
        try:
            infotexts(tmp_path / "pipe")
        except ReadingError as error:
            errors.append(error)

    waiting = threading.Thread(target=read, daemon=True)
    waiting.start()
    waiting.join(10)
    assert "it is not a file; allowed" in str(errors[0])


def test_a_file_larger_than_any_picture(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.write(png())
        file.truncate(1 << 34)
    with pytest.raises(ReadingError, match=f"it has {1 << 34} bytes; allowed"):
        infotexts(tmp_path / "x.png")
