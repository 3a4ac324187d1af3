"""What must hold whatever comes in: each function takes an input, and raises if it does not."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from lazyneg.cli import options
from lazyneg.cli.sweep import _box, _numbers, _seeds
from lazyneg.core import tag
from lazyneg.core.settings import BY_NAME, MAXIMUM, SETTINGS, Settings, SettingsError
from lazyneg.core.tag import Picture
from lazyneg.painting import infotext, pictures, reading
from lazyneg.painting.infotext import Infotext

_LONGEST_MESSAGE = 2000

USUAL = {"Steps": "20", "Sampler": "Euler a", "Seed": "1"}
"""Parameters that make a line one of parameters."""


def arguments(values: Mapping[Any, object]) -> None:
    """Values by name, as the API and Python take them."""
    try:
        settings = Settings.parse(values)
    except SettingsError as error:
        _check_message(error)
        return
    assert values.keys() <= BY_NAME.keys()
    if settings.enabled:
        for name, value in values.items():
            assert value is None or _allowed(name, value), (name, value)
    else:
        assert settings == Settings()
    _check_settings(settings)


def _allowed(name: str, value: object) -> bool:
    """What the table says, in other words."""
    if name in ("enabled", "adaptive"):
        return value is True or value is False
    if name in ("unit", "hires"):
        return value in {"unit": ("steps", "percent"), "hires": ("full", "same", "own")}[name]
    if name == "early_prompt":
        return isinstance(value, str)
    least, most = (1, 100) if name == "area" else (0, MAXIMUM)
    number = isinstance(value, (Integral, float)) and not isinstance(value, bool)
    return number and value == int(value) and least <= value <= most  # type: ignore


def _check_settings(settings: Settings) -> None:
    """Accepted settings are within the table, and all that they are written to gives them back."""
    values = vars(settings)
    assert [*map(type, values.values())] == [type(setting.default) for setting in SETTINGS]
    assert not settings.stop_step or settings.stop_step > settings.critical_step
    if settings.unit == "percent":
        assert max(settings.critical_step, settings.stop_step) <= 100
        assert settings.hires != "own" or settings.hires_critical_step <= 100
    for steps in (1, 20, MAXIMUM):
        for hires_pass in (False, True):
            window = settings.window(steps, hires_pass=hires_pass)
            assert window.active(steps) is window.active(steps - 1)
    assert Settings.parse(values) == settings
    written = Infotext("girl", "hat", {**USUAL, **settings.infotext()})
    assert Settings.from_infotext(written.parameters) == settings
    read = infotext.parse(str(written))
    assert read == written
    settings.early_prompt.encode()


def infotexts(text: str) -> None:
    """A text with any number of infotexts."""
    parts = infotext.split(text)
    lines = [line.strip() for part in parts for line in part.split("\n")]
    assert [line for line in lines if line] == [
        line for line in map(str.strip, text.split("\n")) if line
    ]
    for part in (text, *parts[:3]):
        infotext.rest(part)
        read = infotext.parse(part)
        try:
            _check_settings(Settings.from_infotext(read.parameters))
        except SettingsError as error:
            _check_message(error)
        known = USUAL.keys() <= read.parameters.keys()
        texts = f"{read.prompt}\n{read.negative}".split("\n")
        if known and not any(line.startswith("Negative prompt:") for line in texts):
            assert infotext.parse(str(read)) == read


def tags(prompt: str, negative: str, settings: Settings) -> None:
    """Prompts with tags, and what is almost one."""
    rest, found = tag.cut(prompt)
    assert len(rest) + sum(len(":".join(items)) + len("<lazyneg:>") for items in found) == len(
        prompt
    )
    messages = tag.misuses(prompt, negative)
    assert all("allowed" in message for message in messages)
    assert sum(map(len, messages)) < _LONGEST_MESSAGE
    try:
        picture = Picture.of(settings, found, tag.cut(negative)[1])
    except SettingsError as error:
        _check_message(error)
        return
    for one in (picture.first, picture.hires):
        _check_settings(one)
    if found:
        assert picture.first.enabled
        assert len(found) == 1


def sweep_options(text: str) -> None:
    """Lists of seeds, steps and areas, and a region."""
    with contextlib.suppress(typer.BadParameter):
        seeds = _seeds(text)
        assert all(0 <= seed <= options.LARGEST_SEED for seed in seeds)
        assert len(set(seeds)) == len(seeds) > 0
        if len(seeds) < 1000:
            assert _seeds(",".join(map(str, seeds))) == seeds
    for least, never in ((0, False), (1, True)):
        with contextlib.suppress(typer.BadParameter):
            numbers = _numbers(text, "--steps", least=least, never=never)
            assert numbers == sorted(set(numbers))
            assert all(number >= least or (never and not number) for number in numbers)
            again = ",".join(str(number) if number >= least else "never" for number in numbers)
            assert _numbers(again, "--steps", least=least, never=never) == numbers
            assert text.isascii()
    with contextlib.suppress(typer.BadParameter):
        left, top, right, bottom = _box(text)
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert text.isascii()


_FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def files(data: bytes) -> None:
    """A picture or a text, by what is in it."""
    path = Path(_FOLDER.name, "file")
    path.write_bytes(data)
    try:
        found = reading.infotexts(path)
    except reading.ReadingError as error:
        _check_message(error)
        return
    assert all(text and text == text.strip() for text in found)
    # As long as the file, but for what is compressed.
    assert sum(map(len, found)) <= max(4 * len(data), 1 << 23)
    for text in found[:3]:
        infotext.parse(text)


def written_pictures(text: str) -> None:
    """A text that is written into a picture."""
    png = io.BytesIO()
    pictures.save(_PICTURE, png, text)
    path = Path(_FOLDER.name, "written.png")
    path.write_bytes(png.getvalue())
    wanted = infotext_shown(text)
    found = reading.infotexts(path) if wanted else []
    assert found == [wanted] * bool(wanted), (found, wanted)


_PICTURE = Image.new("1", (1, 1))


def infotext_shown(text: str) -> str:
    """What of a text a picture can give back."""
    return "\n".join(line.lstrip("\ufeff") for line in text.split("\n")).strip()


def _check_message(error: Exception) -> None:
    message = str(error)
    assert "allowed" in message
    assert len(message) < _LONGEST_MESSAGE, len(message)
