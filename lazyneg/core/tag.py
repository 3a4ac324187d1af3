"""The tag ``<lazyneg:…>`` in a prompt: steps for one picture, in place of those of the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazyneg.core.settings import Settings, SettingsError, parse_amount
from lazyneg.core.window import Window

NAME = "lazyneg"
ALLOWED = f"<{NAME}:5>, <{NAME}:25%>, <{NAME}:5:15>"


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
                and unit, also where the request is disabled. Early prompt and hires choice stay.
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
    shown = " ".join(f"<{':'.join([NAME, *items])}>" for items in tags)
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
        "early_prompt": settings.early_prompt,
    }
    try:
        return Settings.parse(values)
    except SettingsError as error:
        raise SettingsError(f"in the tag {shown}: {error}") from None
