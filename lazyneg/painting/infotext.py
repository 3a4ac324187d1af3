"""Generation parameters as text, the way AUTOMATIC1111's WebUI writes and reads them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

_PAIR = re.compile(
    r"""(?P<name>\w[^:,"\n]*): \s*
    (?P<value> "(?:[^"\\]|\\.)*"(?=,|$) | [^,]*)""",
    re.VERBOSE,
)
_NEGATIVE = "Negative prompt:"


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
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < 3:
        lines, pairs = [*lines, last], []
    parts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            negative, line = True, line.removeprefix(_NEGATIVE).strip()
        parts[negative].append(line)
    parameters = {name: _unquoted(value.strip()) for name, value in pairs}
    return Infotext("\n".join(parts[0]), "\n".join(parts[1]), parameters)


def split(text: str) -> list[str]:
    """Several infotexts, each of which ends with the line of its parameters."""
    found: list[list[str]] = [[]]
    for line in text.strip().splitlines():
        found[-1].append(line)
        if line.startswith("Steps: "):
            found.append([])
    joined = ("\n".join(lines).strip() for lines in found)
    return [one for one in joined if one]


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n]|^"', value) else value


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            pass
    return value
