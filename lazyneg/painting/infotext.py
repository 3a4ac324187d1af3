"""Generation parameters as text, the way AUTOMATIC1111's WebUI writes and reads them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

_PAIR = re.compile(
    # A name is looked for once in a run of its letters, so that no text takes long.
    r"""(?<![\w\ /-]) [\ /-]* (?P<name>\w[\w\ /-]+): \s*
    (?P<value> "(?:[^"\\]|\\.)*"(?=,|$) | [^,]*)""",
    re.VERBOSE,
)
_NEGATIVE = "Negative prompt:"
_FEWEST = 3
"""Pairs that make a line one of parameters, for the WebUI."""
_USUAL = {"Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model"}
"""Parameters of which two tell such a line from a prompt, where it is not the last one."""
_TEMPLATE = re.compile("(Negative )?Template:")
"""Lines of the extension Dynamic Prompts, which come after the parameters."""


@dataclass(frozen=True)
class Infotext:
    """What a picture was made of.

    Attributes:
        prompt: The prompt.
        negative: The negative prompt, or nothing.
        parameters: The rest, by the WebUI's names.
    """

    prompt: str
    negative: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [self.prompt]
        if self.negative:
            lines.append(f"{_NEGATIVE} {self.negative}")
        pairs = (f"{name}: {_quoted(value)}" for name, value in self.parameters.items())
        return "\n".join([*lines, ", ".join(pairs)])


def parse(text: str) -> Infotext:
    """Reads one infotext. A text without parameters is a prompt."""
    lines = text.strip().split("\n")
    end = _parameters_at(lines)
    pairs = [] if end is None else _PAIR.findall(lines[end])
    parts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines[:end]):
        if line.startswith(_NEGATIVE):
            negative, line = True, line.removeprefix(_NEGATIVE).strip()
        parts[negative].append(line)
    parameters = {name: _unquoted(value.strip()) for name, value in pairs}
    return Infotext("\n".join(parts[0]), "\n".join(parts[1]), parameters)


def rest(text: str) -> str:
    """What comes after the parameters of one infotext, and is no part of it."""
    lines = text.strip().split("\n")
    end = _parameters_at(lines)
    return "" if end is None else "\n".join(lines[end + 1 :]).strip()


def split(text: str) -> list[str]:
    """Several infotexts, each with what comes after its parameters.

    That is a template of Dynamic Prompts, up to a blank line, and at the end of the text whatever
    has neither parameters nor a negative prompt.
    """
    found: list[list[str]] = []
    # Lines belong to what is before the parameters, after them, or a template after them.
    place = "after"
    follows = False
    for line in text.strip().split("\n"):
        if follows and _TEMPLATE.match(line):
            place = "template"
        elif place == "template" and not line.strip():
            place = "after"
        elif place == "after" and line.strip():
            found.append([])
            place = "before"
        if found:
            found[-1].append(line)
        follows = place == "before" and _is_parameters(line)
        if follows:
            place = "after"
    if len(found) > 1 and place == "before":
        *_, before, last = found
        if not any(line.strip().startswith(_NEGATIVE) for line in last):
            before += found.pop()
    return ["\n".join(lines).strip() for lines in found]


def _parameters_at(lines: list[str]) -> int | None:
    """The last line of parameters: for the WebUI always the last line, if it is one."""
    for at in reversed(range(len(lines))):
        if _is_parameters(lines[at]):
            return at
    return len(lines) - 1 if len(_PAIR.findall(lines[-1])) >= _FEWEST else None


def _is_parameters(line: str) -> bool:
    names = [name for name, _ in _PAIR.findall(line)]
    return len(names) >= _FEWEST and len(_USUAL.intersection(names)) >= 2


def _quoted(value: str) -> str:
    # Also what would be stripped, or be taken for the end of a line by those who read files.
    plain = value == value.strip() and not re.search(r'[,:\n\r]|^"', value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            pass
    return value
