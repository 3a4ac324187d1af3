"""One request: its settings, its tags, and what the pictures' infotexts say of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modules import extra_networks, shared

from lazyneg.core import tag
from lazyneg.core.settings import ERROR_KEY, SETTINGS, Settings, SettingsError
from lazyneg.core.tag import Picture

if TYPE_CHECKING:
    from lazyneg.webui.host.steps import StepCounter

JOB = "lazyneg_job"
"""Attribute of the host's processing object that holds the job, so that it dies with it."""

OVERRIDES = "lazyneg_overrides"
"""Attribute of the processing object with values that an X/Y/Z axis put in."""

INFOTEXT_AT_ZERO = "lazyneg_infotext_at_zero"
"""Option whether settings that change nothing are written into the infotext."""


@dataclass
class Job:
    """One request: its settings, and what the batch and the pass under way need.

    ``pictures`` has one entry for each picture of the batch, or one for all of them.
    """

    settings: Settings
    pictures: list[Picture]
    tag_error: bool = False
    early: Any = None
    """Conditioning of the steps without the negative prompt."""
    early_beside: Any = None
    """The host's own unconditional schedule when ``early`` was encoded."""
    counter: StepCounter | None = None


def start_job(p: Any, args: Sequence[object]) -> None:
    """Reads the settings of a request onto its processing object."""
    forget(p)
    try:
        settings = Settings.parse(_values(args, getattr(p, OVERRIDES, {})))
    except SettingsError as error:
        report(p, str(error))
        # A tag in the prompt acts as it will when the picture's infotext is pasted.
        settings = Settings()
    acts = settings.delays() or settings.delays(hires_pass=True)
    prompts = (*p.all_prompts, *(getattr(p, "all_hr_prompts", None) or ()))
    if acts or _infotext_at_zero() or any(map(_tags, prompts)):
        p.extra_generation_params.update(
            {key: _quoted(value) for key, value in settings.infotext().items()}
        )
    setattr(p, JOB, Job(settings, [Picture.of(settings, ())]))


def start_batch(p: Any, number: int) -> None:
    """Reads the tags in the prompts of the batch about to start."""
    job = getattr(p, JOB, None)
    if job is None:
        return
    if job.tag_error:
        p.extra_generation_params.pop(ERROR_KEY, None)
        job.tag_error = False
    job.pictures = []
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
    for message in dict.fromkeys(told):
        if ERROR_KEY not in p.extra_generation_params:
            job.tag_error = True
            p.extra_generation_params[ERROR_KEY] = message
        p.comment(f"Lazy Negative ignores a tag: {message}")


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
    for key in (*(setting.infotext for setting in SETTINGS), ERROR_KEY):
        p.extra_generation_params.pop(key, None)


def report(p: Any, message: str) -> None:
    """Switches the job off and says why: under the picture, and in the infotext for the API."""
    forget(p)
    p.extra_generation_params[ERROR_KEY] = message
    p.comment(f"Lazy Negative is off for this picture: {message}")
