"""The one table of settings. Interface, API, infotext, command line and docs are made from it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from lazyneg.core.window import Window

ERROR_KEY = "LazyNeg error"
"""Infotext key under which a refused setting is reported."""

VERSION_KEY = "LazyNeg version"
"""Infotext key of the version that made a picture. Nothing reads it back."""

ACTED_KEYS = {False: "LazyNeg acted", True: "LazyNeg hires acted"}
"""Infotext keys that tell in which steps an adaptive negative prompt acted, in the first and in the
hires pass. Nothing reads them back."""


SLIDER_MAXIMUM = {"steps": 150, "percent": 100}
"""What the sliders offer for each unit. More steps than that are allowed: past the last step the
negative prompt never acts. More percent are not."""


MAXIMUM = 10**9
"""No number of steps is larger. All that matters is that it can be written and read back."""


NO_TEXT = re.compile("[\0-\x08\ud800-\udfff]")
"""What no text of ours has: no infotext, file or command line could carry it."""

_SHOWN = 80
"""Characters of a value that a message shows."""


class SettingsError(ValueError):
    """A setting has a value that is not allowed. The message names the value and what is."""


@dataclass(frozen=True)
class Setting:
    """What is known about one setting besides its value.

    Attributes:
        name: Name in Python, in the API's dict and, by position in the table, in its list.
        label: Name in the interface. Saved defaults are stored by it: never change one.
        help: One sentence for the place where people look for it.
        default: The value taken when none is given. Its type is the type of the setting.
        infotext: Key in the infotext, ``None`` where another key implies the value.
        in_steps: Whether the value is a number of steps (or percent of the steps).
        minimum: Of a whole number, and so is the next.
        maximum: See there.
        suffix: What stands behind a whole number in the infotext.
        choices: The values allowed for a choice, empty for other kinds.
    """

    name: str
    label: str
    help: str
    default: bool | int | str
    infotext: str | None = None
    in_steps: bool = False
    minimum: int = 0
    maximum: int = MAXIMUM
    suffix: str = ""
    choices: tuple[str, ...] = ()

    @property
    def slider(self) -> tuple[int, int] | None:
        """What a slider offers, from and to; ``None`` if the setting is no number."""
        if self.in_steps:
            return 0, max(SLIDER_MAXIMUM.values())
        whole = isinstance(self.default, int) and not isinstance(self.default, bool)
        return (self.minimum, self.maximum) if whole else None

    def read(self, text: str) -> object:
        """The value that a text in an infotext stands for, where it is not one of steps.

        Raises:
            ValueError: If the text is none that is written there.
        """
        if isinstance(self.default, bool):
            if text not in ("True", "False"):
                raise ValueError(f"{shown(text)}; allowed: True or False")
            return text == "True"
        if isinstance(self.default, int):
            match = re.fullmatch(rf"([0-9]{{1,18}}){re.escape(self.suffix)}", text)
            if not match:
                raise ValueError(f"{shown(text)}; allowed: a whole number with {self.suffix}")
            return int(match[1])
        return text


def _field(name: str, default: bool | int | str, **about: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"setting": Setting(name=name, default=default, **about)}
    )


@dataclass(frozen=True)
class Settings:
    """Validated settings of one request. Make them with :meth:`parse`."""

    enabled: bool = _field(
        "enabled",
        False,
        label="Lazy Negative",
        help="Keep the negative prompt out of the first steps.",
    )
    critical_step: int = _field(
        "critical_step",
        5,
        label="Critical step",
        help="First step, counted from 0, that uses the negative prompt; the steps before it use "
        "the empty prompt. 0 changes nothing.",
        infotext="LazyNeg critical step",
        in_steps=True,
    )
    unit: str = _field(
        "unit",
        "steps",
        label="Unit",
        help="Count in sampling steps, or in percent of the steps of the pass.",
        choices=("steps", "percent"),
    )
    stop_step: int = _field(
        "stop_step",
        0,
        label="Stop step",
        help="From this step on the empty prompt is used again. 0 never stops.",
        infotext="LazyNeg stop step",
        in_steps=True,
    )
    hires: str = _field(
        "hires",
        "full",
        label="Hires pass",
        help="full: the negative prompt from the first step of the hires pass. same: delay it "
        "there as in the first pass. own: delay it there by a critical step of its own.",
        infotext="LazyNeg hires",
        choices=("full", "same", "own"),
    )
    hires_critical_step: int = _field(
        "hires_critical_step",
        0,
        label="Hires critical step",
        help="Critical step of the hires pass, in the same unit; read only with own.",
        infotext="LazyNeg hires critical step",
        in_steps=True,
    )
    early_prompt: str = _field(
        "early_prompt",
        "",
        label="Early negative prompt",
        help="Used in place of the empty prompt, for quality tags or an embedding that should act "
        "from the start.",
        infotext="LazyNeg early prompt",
    )
    area: int = _field(
        "area",
        100,
        label="Area",
        help="Percent of the picture in which the negative prompt acts: where it changes most. "
        "100 is everywhere.",
        infotext="LazyNeg area",
        minimum=1,
        maximum=100,
        suffix="%",
    )
    adaptive: bool = _field(
        "adaptive",
        False,
        label="Adaptive",
        help="Let the negative prompt act in a picture only while what it names shows there.",
        infotext="LazyNeg adaptive",
    )

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Settings:
        """Validates values by name; missing ones and ``None`` take the defaults.

        While ``enabled`` is false the other values are not looked at: they have no effect.

        Raises:
            SettingsError: On an unknown name or a value that is not allowed.
        """
        for name in values:
            if name not in BY_NAME:
                raise SettingsError(f"unknown setting {shown(name)}; allowed: {', '.join(BY_NAME)}")
        given = {name: value for name, value in values.items() if value is not None}
        enabled = _checked(BY_NAME["enabled"], given.pop("enabled", False))
        if not enabled:
            return cls()
        settings = cls(
            enabled=True,
            **{name: _checked(BY_NAME[name], value) for name, value in given.items()},
        )
        settings._check_ranges()
        return settings

    def _check_ranges(self) -> None:
        for setting in SETTINGS:
            if setting.name == "hires_critical_step" and self.hires != "own":
                continue
            value = getattr(self, setting.name)
            if setting.in_steps and self.unit == "percent" and value > 100:
                raise SettingsError(
                    f"{setting.name} is {value} percent; allowed: whole numbers from 0 to 100"
                )
        if 0 < self.stop_step <= self.critical_step:
            raise SettingsError(
                f"stop_step is {self.stop_step}; allowed: 0 (never) or more than the critical "
                f"step, which is {self.critical_step}"
            )

    def window(self, steps: int, *, hires_pass: bool = False) -> Window:
        """The window of a pass of ``steps`` steps in which the negative prompt acts."""
        critical, stop = self._span(hires_pass)
        if self.unit == "percent":
            critical = critical * steps // 100
            stop = stop and stop * steps // 100
        return Window(critical, stop, steps)

    @property
    def chooses(self) -> bool:
        """Whether the picture itself tells where, or while, the negative prompt acts."""
        return self.area < 100 or self.adaptive

    def delays(self, *, hires_pass: bool = False) -> bool:
        """Whether the negative prompt can be kept out of anything in a pass of any length."""
        return self._span(hires_pass) != (0, None) or self.chooses

    def _span(self, hires_pass: bool) -> tuple[int, int | None]:
        """Critical and stop step of a pass, in the unit of these settings."""
        if not self.enabled or (hires_pass and self.hires == "full"):
            return 0, None
        if hires_pass and self.hires == "own":
            return self.hires_critical_step, None
        return self.critical_step, self.stop_step or None

    def in_unit(self, unit: str, steps: int, hires_steps: int) -> Settings:
        """Settings that mean the same steps in another unit, as the page's own switch makes them.

        Args:
            unit: ``steps`` or ``percent``.
            steps: Steps of the first pass.
            hires_steps: Steps of the hires pass.
        """
        if unit == self.unit:
            return self

        def converted(value: int, of: int) -> int:
            return min(-(-value * 100 // of), 100) if unit == "percent" else value * of // 100

        critical = converted(self.critical_step, steps)
        # 0 would mean "never stops", and a stop has to come after the start.
        stop = self.stop_step and max(converted(self.stop_step, steps), critical + 1)
        return dataclasses.replace(
            self,
            unit=unit,
            critical_step=critical,
            # Nothing starts at 100 percent, so nothing has to stop.
            stop_step=0 if unit == "percent" and stop > 100 else stop,
            hires_critical_step=converted(self.hires_critical_step, hires_steps),
        )

    def infotext(self) -> dict[str, str]:
        """Infotext keys and values that reproduce these settings; empty when disabled."""
        if not self.enabled:
            return {}
        suffix = "%" if self.unit == "percent" else ""
        return {
            setting.infotext: f"{value}{suffix if setting.in_steps else setting.suffix}"
            for setting in SETTINGS
            if setting.infotext
            and (
                (value := getattr(self, setting.name)) != setting.default
                or setting.name == "critical_step"
            )
        }

    @classmethod
    def from_infotext(cls, params: Mapping[str, object]) -> Settings:
        """Reads settings back from the keys of :meth:`infotext`; disabled where there are none.

        Raises:
            SettingsError: On values that :meth:`infotext` does not write.
        """
        values: dict[str, object] = {}
        units: dict[str, str] = {}
        for setting in SETTINGS:
            if setting.infotext is None:
                continue
            text = params.get(setting.infotext)
            # The WebUI's reader splits what looks like a size into two keys.
            if text is None and f"{setting.infotext}-1" in params:
                text = "x".join(str(params.get(f"{setting.infotext}-{half}")) for half in (1, 2))
            if text is None:
                continue
            try:
                if setting.in_steps:
                    values[setting.name], units[setting.infotext] = parse_amount(str(text))
                else:
                    values[setting.name] = setting.read(str(text))
            except (RecursionError, ValueError) as error:
                raise SettingsError(f"{setting.infotext} is {error}") from None
        if "critical_step" not in values:
            return cls()
        if len(set(units.values())) > 1:
            raise SettingsError(f"{', '.join(units)} mix steps and percent; allowed: one of them")
        return cls.parse({"enabled": True, "unit": next(iter(units.values())), **values})


SETTINGS: tuple[Setting, ...] = tuple(
    field.metadata["setting"] for field in dataclasses.fields(Settings)
)
"""The table, in the order of the API's arguments: append only."""

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


def parse_amount(text: str) -> tuple[int, str]:
    """Reads an amount of steps as texts carry it, ``5`` or ``25%``, into number and unit.

    Raises:
        ValueError: On any other text.
    """
    match = re.fullmatch(r"([0-9]{1,18})(%?)", text)
    if not match:
        raise ValueError(f"{shown(text)}; allowed: a whole number, or one with %")
    return int(match[1]), "percent" if match[2] else "steps"


def _checked(setting: Setting, value: object) -> Any:
    """``value`` in the setting's own type, or an error that names both."""
    if setting.choices:
        if isinstance(value, str) and value in setting.choices:
            return value
        allowed = " or ".join(setting.choices)
    elif isinstance(setting.default, bool):
        if isinstance(value, bool):
            return value
        allowed = "true or false"
    elif isinstance(setting.default, str):
        if isinstance(value, str) and not NO_TEXT.search(value):
            # Surrounding blanks mean nothing to a prompt and do not survive the infotext.
            return value.strip()
        allowed = r"text in UTF-8, without characters such as \x00"
    else:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if whole and setting.minimum <= int(value) <= setting.maximum:  # type: ignore[call-overload]
            return int(value)  # type: ignore[call-overload]
        allowed = f"whole numbers from {setting.minimum} to {setting.maximum}"
    raise SettingsError(f"{setting.name} is {shown(value)}; allowed: {allowed}")


def shown(value: object) -> str:
    """A value as messages show it: on one line, and cut where it is long."""
    try:
        text = repr(value)
    except Exception:
        # Numbers of very many digits and lists of very many levels have none.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
