"""The tag ``<lazyneg:…>`` in a prompt: steps for one picture, in place of those of the request."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lazyneg.core.settings import Settings, SettingsError, parse_amount
from lazyneg.core.window import Window

NAME = "lazyneg"
ALLOWED = f"<{NAME}:5>, <{NAME}:25%>, <{NAME}:5:15>"

_NETWORK = re.compile(r"<(\w+):([^>]+)>")
"""What the WebUI cuts out of a prompt, our tag among it."""

_SHOWN = 60
"""Characters of a tag that a message shows."""
_MOST = 5
"""Tags that messages tell of."""

KEPT = ("early_prompt", "area", "adaptive")
"""Settings of which a tag says nothing."""

_ALIKE = re.compile(
    # Also with the wide brackets and colon of East Asian keyboards.
    r"[<\uff1c]\s{0,3}(?P<name>[a-z][a-z _-]{0,20})[^<>\uff1c\uff1e\n]{0,40}[>\uff1e]?"
    rf"|\b{NAME}\s{{0,3}}[:=\uff1a]\s{{0,3}}\d[\d:%]{{0,20}}",
    re.IGNORECASE,
)
"""What may be meant as a tag."""


@dataclass(frozen=True)
class Picture:
    """What one picture of a batch is made with: settings of its first and of its hires pass."""

    first: Settings
    hires: Settings

    @classmethod
    def of(
        cls,
        settings: Settings,
        tags: Sequence[Sequence[str]],
        hires_tags: Sequence[Sequence[str]] | None = None,
    ) -> Picture:
        """Settings of the request with the tags of one prompt put over them.

        Args:
            settings: Settings of the request. A tag takes the place of critical step, stop step
                and unit, also where the request is disabled. All else stays.
            tags: Arguments of each tag in the prompt.
            hires_tags: The same of the hires prompt, ``None`` if the hires pass has no prompt of
                its own. A tag there speaks for the hires pass alone.

        Raises:
            SettingsError: On a tag that cannot be read, or more than one in a prompt.
        """
        first = _tagged(settings, tags)
        hires = _tagged(settings, hires_tags or ())
        if hires is None:
            hires = first if first and settings.hires == "same" else settings
        return cls(first or settings, hires)

    def window(self, steps: int, *, hires_pass: bool = False) -> Window:
        """As :meth:`Settings.window`."""
        return self._of(hires_pass).window(steps, hires_pass=hires_pass)

    def delays(self, *, hires_pass: bool = False) -> bool:
        """As :meth:`Settings.delays`."""
        return self._of(hires_pass).delays(hires_pass=hires_pass)

    def _of(self, hires_pass: bool) -> Settings:
        return self.hires if hires_pass else self.first


def _tagged(settings: Settings, tags: Sequence[Sequence[str]]) -> Settings | None:
    if not tags:
        return None
    shown = " ".join(map(_shown, tags[:_MOST])) + " …" * (len(tags) > _MOST)
    if len(tags) > 1:
        raise SettingsError(f"more than one tag: {shown}; allowed: one of {ALLOWED}")
    try:
        amounts = [parse_amount(item) for item in tags[0]]
    except ValueError:
        amounts = []
    if len(amounts) not in (1, 2) or len({unit for _, unit in amounts}) > 1:
        raise SettingsError(f"cannot read the tag {shown}; allowed: {ALLOWED}")
    values = {
        "enabled": True,
        "critical_step": amounts[0][0],
        "unit": amounts[0][1],
        "stop_step": amounts[1][0] if len(amounts) > 1 else None,
        "hires": "same",
        **{name: getattr(settings, name) for name in KEPT},
    }
    try:
        return Settings.parse(values)
    except SettingsError as error:
        raise SettingsError(f"in the tag {shown}: {error}") from None


def cut(prompt: str) -> tuple[str, list[list[str]]]:
    """A prompt without the tags in it, and the arguments of each, read as the WebUI does."""
    tags: list[list[str]] = []

    def replaced(match: re.Match[str]) -> str:
        if match[1] != NAME:
            return match[0]
        tags.append(match[2].split(":"))
        return ""

    # What no bracket closes is never a tag, and would be looked at once for each that opens.
    end = prompt.rfind(">") + 1
    return _NETWORK.sub(replaced, prompt[:end]) + prompt[end:], tags


def misuses(prompt: str, negative: str) -> list[str]:
    """Tells of what was probably meant as a tag, and is none: misspelt, or in the wrong place.

    Args:
        prompt: The prompt of one picture, with its tags and those of its styles.
        negative: Its negative prompt, the same.

    Returns:
        A message for each of the first, that says what it is and what is allowed.
    """
    others, misplaced = cut(negative)
    in_negative = (*(_shown(items) for items in misplaced), *_alike(others))
    messages = [
        *(
            f"{shown} in the prompt is not a tag; allowed: {ALLOWED}"
            for shown in _alike(cut(prompt)[0])
        ),
        *(
            f"{shown} in the negative prompt does nothing; allowed: in the prompt, {ALLOWED}"
            for shown in in_negative
        ),
    ]
    return list(dict.fromkeys(messages))[:_MOST]


def _shown(items: Sequence[str]) -> str:
    text = ":".join([NAME, *items])
    return f"<{text}>" if len(text) <= _SHOWN else f"<{text[:_SHOWN]}…>"


def _alike(text: str) -> list[str]:
    """Parts of a text that look like a tag."""
    # Without brackets, only the very name is told from words.
    return [
        match[0]
        for match in _ALIKE.finditer(text)
        if match["name"] is None or _is_almost_the_name(match["name"])
    ]


@functools.lru_cache
def _is_almost_the_name(text: str) -> bool:
    name = re.sub("[ _-]", "", text.lower())
    return bool(difflib.get_close_matches(name, (NAME, "lazynegative"), cutoff=0.85))
