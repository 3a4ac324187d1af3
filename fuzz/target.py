"""One target: `python -m fuzz.target NAME`, with options of libFuzzer, or a file to try again."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import atheris

with atheris.instrument_imports(include=["lazyneg", "json"]):
    from fuzz import properties
    from lazyneg.core.settings import BY_NAME, Settings
    from lazyneg.painting.infotext import Infotext

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fuzz.__main__ import FOLDER, TARGETS

_SETTINGS = [
    Settings(),
    Settings.parse({"enabled": True, "critical_step": 30, "unit": "percent", "hires": "own"}),
]
_TEXTS = [
    "<lazyneg:5:15>",
    "girl <lazyneg:25%>, ugly <LazyNeg 5>",
    "0-63,70",
    "never,10,15",
    "0.3,0.2,0.7,0.4",
    str(
        Infotext(
            "girl\neating pizza",
            "hat",
            {
                **properties.USUAL,
                **Settings.parse(
                    {
                        "enabled": True,
                        "critical_step": 5,
                        "stop_step": 15,
                        "hires": "own",
                        "early_prompt": '"low", res: 64x64',
                        "area": 10,
                        "adaptive": True,
                    }
                ).infotext(),
            },
        )
    ),
]
"""What inputs are made from at first."""


def _arguments(data: bytes) -> None:
    """Bytes choose names and values."""
    given = atheris.FuzzedDataProvider(data)
    values: dict[Any, Any] = {"enabled": given.ConsumeBool()}
    for _ in range(given.ConsumeIntInRange(0, 9)):
        name = given.PickValueInList([*BY_NAME, "critical", 5])
        values[name] = _value(given)
    properties.arguments(values)


def _value(given: Any) -> object:
    kinds: list[Callable[[], object]] = [
        lambda: given.PickValueInList(["steps", "percent", "full", "same", "own", True, False]),
        lambda: given.ConsumeIntInRange(-1, 120),
        lambda: float(given.ConsumeIntInRange(-1, 120)),
        lambda: given.ConsumeUnicode(20),
        lambda: given.ConsumeInt(8),
        lambda: given.ConsumeFloat(),
        lambda: np.int64(given.ConsumeInt(4)),
        lambda: 10 ** given.ConsumeIntInRange(0, 6000),
        lambda: json.loads("[" * (depth := given.ConsumeIntInRange(0, 500)) + "]" * depth or "{}"),
        lambda: None,
    ]
    return given.PickValueInList(kinds)()


def _texts(check: Callable[[str], None]) -> Callable[[bytes], None]:
    return lambda data: check(data.decode("utf-8", "surrogateescape"))


def _tags(data: bytes) -> None:
    prompt, _, negative = data.decode("utf-8", "surrogateescape").partition("\n")
    properties.tags(prompt, negative, _SETTINGS[len(negative) % 2])


def _written_pictures(data: bytes) -> None:
    properties.written_pictures(data.decode("utf-8", "ignore"))


_RUN = {
    "arguments": _arguments,
    "infotexts": _texts(properties.infotexts),
    "tags": _tags,
    "sweep_options": _texts(properties.sweep_options),
    "files": properties.files,
    "written_pictures": _written_pictures,
}


def _first(target: str) -> Iterator[bytes]:
    """Inputs to begin with."""
    yield from (text.encode() for text in _TEXTS)
    if target != "files":
        return
    yield from (text.encode(f"utf-{bits}") for text in _TEXTS for bits in (16, 32))
    exif = Image.Exif()
    comment = b"UNICODE\0" + _TEXTS[-1].encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    info = PngInfo()
    info.add_text("parameters", _TEXTS[-1])
    zipped = PngInfo()
    zipped.add_text("parameters", _TEXTS[-1], zip=True)
    foreign = PngInfo()
    foreign.add_itxt("parameters", f"女の子 {_TEXTS[-1]}", zip=True)
    ways: list[tuple[str, dict[str, Any]]] = [
        *(("png", {"pnginfo": one}) for one in (info, zipped, foreign)),
        *((kind, {"exif": exif}) for kind in ("png", "jpeg", "webp")),
        ("gif", {"comment": _TEXTS[-1].encode()}),
        ("jpeg", {"comment": _TEXTS[-1].encode()}),
    ]
    for kind, options in ways:
        file = io.BytesIO()
        Image.new("RGB", (4, 4)).save(file, kind, **options)
        yield file.getvalue()


def _words() -> str:
    """Words of the texts, for libFuzzer to put together."""
    words = {
        *(setting.infotext for setting in BY_NAME.values() if setting.infotext),
        *("<lazyneg:", "Negative prompt: ", "parameters", "UNICODE", "never", "25%", "True"),
        *("Exif", "tEXt", "zTXt", "iTXt", "eXIf", "IEND", "RIFF", "WEBP", "EXIF", "GIF89a"),
    }
    return "".join(f'"{word}"\n' for word in sorted(words))


def main() -> None:
    target = sys.argv.pop(1)
    corpus = FOLDER / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(_first(target)):
        (corpus / f"first-{number}").write_bytes(data)
    dictionary = FOLDER / "words"
    dictionary.write_text(_words(), "utf-8")
    atheris.Setup([*sys.argv, f"-dict={dictionary}", str(corpus)], _RUN[target])
    atheris.Fuzz()


if __name__ == "__main__":
    assert _RUN.keys() == {*TARGETS}
    main()
