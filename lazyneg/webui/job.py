"""One request: its settings, its tags, and what the pictures' infotexts say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modules import extra_networks, shared

from lazyneg import __version__
from lazyneg.core import tag
from lazyneg.core.settings import (
    ACTED_KEYS,
    ERROR_KEY,
    SETTINGS,
    VERSION_KEY,
    Settings,
    SettingsError,
)
from lazyneg.core.tag import Picture
from lazyneg.core.window import spans
from lazyneg.webui.host import third_row

if TYPE_CHECKING:
    from lazyneg.core.guidance import Guidance
    from lazyneg.webui.host.steps import StepCounter

JOB = "lazyneg_job"
"""Attribute of the host's processing object that holds the job, so that it dies with it."""

OVERRIDES = "lazyneg_overrides"
"""Attribute of the processing object with values that an X/Y/Z axis put in."""

INFOTEXT_AT_ZERO = "lazyneg_infotext_at_zero"
"""Option whether settings that change nothing are written into the infotext."""


@dataclass
class PassUnderWay:
    """A pass that runs: where it is, and what is known of each picture of the batch."""

    counter: StepCounter
    guidances: list[Guidance]
    over: bool = False
    """Whether the negative prompt acts in all steps that are left, as the host has it."""


@dataclass
class Job:
    """One request: its settings, and what the batch and the pass under way need.

    ``pictures`` has one entry for each picture of the batch, or one for all of them.
    """

    settings: Settings
    pictures: list[Picture]
    first: int = 0
    """Where the batch begins among the pictures of the request."""
    idle: bool = False
    """Whether no picture of the batch is delayed in any pass."""
    tag_error: bool = False
    early: Any = None
    """Conditioning of the steps without the negative prompt."""
    early_beside: Any = None
    """The host's own unconditional schedule when ``early`` was encoded."""
    under_way: PassUnderWay | None = None
    acted: dict[tuple[int, bool], set[int]] = field(default_factory=dict)
    """Steps in which the negative prompt acted in a picture of the request, by whether they are
    those of the hires pass; no entry where that pass has not begun."""

    def note(self, picture: int, *, hires_pass: bool) -> str | None:
        """In which steps of a pass an adaptive negative prompt acted in a picture.

        ``None`` where it is not adaptive, or the pass has not begun.
        """
        steps = self.acted.get((picture, hires_pass))
        return spans(steps) if self.settings.adaptive and steps is not None else None


def start_job(p: Any, args: Sequence[object]) -> None:
    """Reads the settings of a request onto its processing object."""
    forget(p)
    try:
        settings = Settings.parse(_values(args, getattr(p, OVERRIDES, {})))
    except SettingsError as error:
        report(p, str(error))
        # A tag in the prompt acts as it will when the picture's infotext is pasted.
        settings = Settings()
    if settings.chooses and (lacking := third_row.shortcoming()):
        report(p, f"area and adaptive cannot be had here, as {lacking}")
        settings = Settings()
    acts = settings.delays() or settings.delays(hires_pass=True)
    prompts = (*p.all_prompts, *(getattr(p, "all_hr_prompts", None) or ()))
    tagged = any(map(_tags, prompts))
    told = settings.infotext() if acts or _infotext_at_zero() or tagged else {}
    if told or tagged:
        told[VERSION_KEY] = __version__
    p.extra_generation_params.update({key: _quoted(value) for key, value in told.items()})
    job = Job(settings, [Picture.of(settings, ())])
    if settings.adaptive:
        for hires_pass, key in ACTED_KEYS.items():
            p.extra_generation_params[key] = _teller(job, hires_pass)
    setattr(p, JOB, job)


def start_batch(p: Any, number: int) -> None:
    """Reads the tags in the prompts of the batch about to start."""
    job = getattr(p, JOB, None)
    if job is None:
        return
    if job.tag_error:
        p.extra_generation_params.pop(ERROR_KEY, None)
        job.tag_error = False
    job.pictures = []
    job.first = number * p.batch_size
    told: list[str] = []
    batch = slice(number * p.batch_size, (number + 1) * p.batch_size)
    texts = (
        p.all_prompts,
        p.all_negative_prompts,
        getattr(p, "all_hr_prompts", None) or p.all_prompts,
        getattr(p, "all_hr_negative_prompts", None) or p.all_negative_prompts,
    )
    for prompt, negative, hires_prompt, hires_negative in zip(*(some[batch] for some in texts)):
        # The host leaves an inherited hires prompt out of the infotext: the same text is no own.
        hires_tags = None if hires_prompt == prompt else _tags(hires_prompt)
        try:
            job.pictures.append(Picture.of(job.settings, _tags(prompt), hires_tags))
        except SettingsError as error:
            job.pictures.append(Picture.of(job.settings, ()))
            told.append(str(error))
        told += tag.misuses(prompt, negative)
        told += tag.misuses(hires_prompt, hires_negative)
    job.idle = not any(
        picture.delays(hires_pass=hires_pass)
        for picture in job.pictures
        for hires_pass in (False, True)
    )
    for message in dict.fromkeys(told):
        if ERROR_KEY not in p.extra_generation_params:
            job.tag_error = True
            p.extra_generation_params[ERROR_KEY] = message
        p.comment(f"Lazy Negative ignores a tag: {message}")


def end_batch(p: Any) -> None:
    """Tells under the pictures where an adaptive negative prompt acted in those of the batch."""
    job = getattr(p, JOB, None)
    if job is None:
        return
    for number in range(job.first, job.first + len(job.pictures)):
        picture = f" in picture {number + 1}" if len(p.all_prompts) > 1 else ""
        for hires_pass, key in ACTED_KEYS.items():
            if note := job.note(number, hires_pass=hires_pass):
                p.comment(f"{key}{picture}: {note}")


def end_job(p: Any) -> None:
    """Leaves the notes of all pictures where the API's answer can carry them."""
    job = getattr(p, JOB, None)
    if job is None:
        return
    for hires_pass, key in ACTED_KEYS.items():
        notes = [job.note(i, hires_pass=hires_pass) for i in range(len(p.all_prompts))]
        p.extra_generation_params.pop(key, None)
        if any(notes):
            p.extra_generation_params[key] = notes


def _teller(job: Job, hires_pass: bool) -> Callable[..., str | None]:
    """What the host calls for each infotext, with all that it makes the text from."""

    def tell(
        p: Any, all_prompts: Sequence[str], use_main_prompt: bool, index: int, **_: object
    ) -> str | None:
        # A grid is no picture of the request.
        if use_main_prompt:
            return None
        # Infotexts are made from the texts of the batch, or from those of the request.
        ahead = 0 if len(all_prompts) == len(p.all_prompts) else job.first
        return job.note(ahead + index, hires_pass=hires_pass)

    return tell


def _values(args: Sequence[object], overrides: Mapping[str, object]) -> dict[str, object]:
    """The API takes values by position or one dict in their place."""
    if args and isinstance(args[0], Mapping):
        values = dict(args[0])
    else:
        values = dict(zip((setting.name for setting in SETTINGS), args))
    if overrides:
        values["enabled"] = True  # an axis over a step means to use it
    return {**values, **overrides}


def _infotext_at_zero() -> bool:
    # A host started without the page has no section of ours.
    return bool(getattr(shared.opts, INFOTEXT_AT_ZERO, True))


def _quoted(value: str) -> str:
    """The host's reader takes quotes around a value for its writer's, which adds none to this."""
    if len(value) > 1 and value[0] == value[-1] == '"' and not set(value) & set(",:\n"):
        return json.dumps(value, ensure_ascii=False)
    return value


def _tags(prompt: str) -> list[list[str]]:
    """The arguments of each of our tags, read as the host reads its extra networks."""
    found = extra_networks.parse_prompt(prompt)[1].get(tag.NAME, [])
    return [network.items for network in found]


def forget(p: Any) -> None:
    """Takes away what an earlier run left: some scripts run one processing object many times."""
    p.__dict__.pop(JOB, None)
    keys = (setting.infotext for setting in SETTINGS)
    for key in (*keys, VERSION_KEY, ERROR_KEY, *ACTED_KEYS.values()):
        p.extra_generation_params.pop(key, None)


def report(p: Any, message: str) -> None:
    """Switches the job off and says why: under the picture, and in the infotext for the API."""
    forget(p)
    p.extra_generation_params[ERROR_KEY] = message
    p.comment(f"Lazy Negative is off for this picture: {message}")
