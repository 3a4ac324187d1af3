"""What the page paints: three pictures for what its controls say."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL.Image import Image

from lazyneg.core import tag
from lazyneg.core.settings import NO_TEXT, SLIDER_MAXIMUM, Settings, SettingsError, shown
from lazyneg.core.window import Window
from lazyneg.demo import CHECKPOINT
from lazyneg.painting.infotext import Infotext
from lazyneg.painting.models import ModelError
from lazyneg.painting.painter import Painter

STEPS = (1, SLIDER_MAXIMUM["steps"])
"""From and to; and so the next."""
GUIDANCE = (0, 30)
SEED = (0, 2**53 - 1)
"""A page cannot tell larger numbers apart."""

_KEPT = 64
"""Pictures that are not painted again."""

_Parameters = tuple[tuple[str, str], ...]


class RequestError(Exception):
    """The controls say what cannot be painted. The message says what, and what is allowed."""


@dataclass(frozen=True)
class Request:
    """What the controls say, as the browser sends it: nothing is checked yet.

    Attributes:
        prompt: What to paint.
        negative: What not to paint.
        seed: Of the random numbers.
        steps: Of the sampler.
        guidance: The WebUI's CFG scale.
        sampler: By the WebUI's name; empty for the model's own.
        delay: Settings of the table, by name.
    """

    prompt: object
    negative: object
    seed: object
    steps: object
    guidance: object
    sampler: object
    delay: Mapping[str, object]


@dataclass(frozen=True)
class Painted:
    """A picture, and how it came about.

    Attributes:
        picture: The picture.
        infotext: What it is made again with.
        acted: Steps in which an adaptive negative prompt acted.
    """

    picture: Image
    infotext: Infotext
    acted: frozenset[int]


@dataclass(frozen=True)
class Row:
    """Three pictures that differ in nothing but when the negative prompt acts.

    Attributes:
        job: What was asked for.
        settings: When the negative prompt acts in ``delayed``.
        window: The same, in steps.
        without: It never acts.
        always: It acts in all steps.
        delayed: It acts as the settings say.
        notes: What else there is to know.
    """

    job: Infotext
    settings: Settings
    window: Window
    without: Painted
    always: Painted
    delayed: Painted
    notes: tuple[str, ...]


class Session:
    """Paints with one model, and no picture twice. Not for several threads at once.

    Args:
        painter: The model.
        size: ``Size`` of the pictures as the WebUI writes it; empty for the model's own.
        options: Of the command line, which say what model it is and where it runs.
    """

    def __init__(
        self, painter: Painter, size: Mapping[str, str], options: Sequence[tuple[str, object]]
    ) -> None:
        self.painter = painter
        self.size = size
        self.options = options
        self.embedded = painter.files["Model"] == CHECKPOINT
        self._painted = functools.lru_cache(_KEPT)(self._paint)
        parts = painter.pipe.components.items()
        self._tokenizers = [part for name, part in parts if name.startswith("tokenizer") and part]
        painter.pipe.set_progress_bar_config(disable=True)
        # From one row to the next, as the critical step is moved.
        self._sharing = contextlib.ExitStack()
        self._sharing.enter_context(painter.sharing())

    def row(self, request: Request) -> Row:
        """Paints what is not painted yet.

        Raises:
            RequestError: If that cannot be.
        """
        try:
            job, settings = _job(request, self.size)
            window = settings.window(self.painter.steps(job.parameters))
            about = job.prompt, tuple(job.parameters.items())
            # The last two, and the next row's last one, have their first steps in common.
            always = self._painted(*about, job.negative, Settings())
            without = self._painted(*about, "", Settings())
            delayed = self._painted(*about, job.negative, settings)
        except (ModelError, SettingsError) as error:
            raise RequestError(str(error)) from error
        return Row(job, settings, window, without, always, delayed, tuple(self._notes(job)))

    def _paint(
        self, prompt: str, parameters: _Parameters, negative: str, settings: Settings
    ) -> Painted:
        job = Infotext(prompt, negative, dict(parameters))
        acted: set[int] = set()
        seeds = [int(job.parameters["Seed"])]
        ((picture, infotext),) = self.painter.paint_batch(job, seeds, settings, acted)
        return Painted(picture, infotext, frozenset(acted))

    def _notes(self, job: Infotext) -> Iterator[str]:
        if float(job.parameters["CFG scale"]) <= 1:
            yield "Guidance is not more than 1: a negative prompt has no effect."
        for name, text in (("Prompt", job.prompt), ("Negative prompt", job.negative)):
            limits = [
                tokenizer.model_max_length
                for tokenizer in self._tokenizers
                if len(tokenizer(text).input_ids) > tokenizer.model_max_length
            ]
            if limits:
                yield f"{name} is too long: the model reads its first {min(limits)} tokens."


def _job(request: Request, size: Mapping[str, str]) -> tuple[Infotext, Settings]:
    """What to paint, and when the negative prompt acts.

    Raises:
        RequestError: If a value is not allowed.
        SettingsError: If it is one of the delay.
    """
    prompt, negative = _text("prompt", request.prompt), _text("negative", request.negative)
    problems = tag.misuses(prompt, negative)
    if tag.cut(prompt)[1]:
        problems.append(
            f"<{tag.NAME}:…> is in the prompt; allowed: texts without, as the controls decide"
        )
    if problems:
        raise RequestError("; ".join(problems))
    if not isinstance(request.sampler, str):
        raise RequestError(
            f"sampler is {shown(request.sampler)}; allowed: a name, or an empty text"
        )
    parameters = {
        "Steps": f"{_number('steps', request.steps, STEPS, whole=True)}",
        "Sampler": request.sampler,
        "CFG scale": f"{_number('guidance', request.guidance, GUIDANCE):g}",
        "Seed": f"{_number('seed', request.seed, SEED, whole=True)}",
        **size,
    }
    given = {name: value for name, value in parameters.items() if value}
    return Infotext(prompt, negative, given), Settings.parse({"enabled": True, **request.delay})


def _text(name: str, value: object) -> str:
    """A prompt without blanks at the ends of its lines, which infotexts do not keep."""
    lines = value.strip().splitlines() if isinstance(value, str) else []
    text = "\n".join(map(str.strip, lines))
    if not text:
        raise RequestError(f"{name} is empty; allowed: any text")
    if found := NO_TEXT.search(text):
        raise RequestError(f"{name} has the character {found[0]!a}; allowed: text in UTF-8")
    return text


def _number(name: str, value: object, span: tuple[int, int], whole: bool = False) -> float:
    """A number within a span."""
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and span[0] <= value <= span[1]
        and not (whole and value != int(value))
    ):
        return int(value) if whole else round(value, 2)
    kind = "whole numbers" if whole else "numbers"
    raise RequestError(f"{name} is {shown(value)}; allowed: {kind} from {span[0]} to {span[1]}")
