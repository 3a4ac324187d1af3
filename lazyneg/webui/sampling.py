"""What happens to a job: its settings, the empty conditioning of each pass, the swap."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modules import (
    errors,
    extra_networks,
    processing,
    prompt_parser,
    sd_hijack,
    sd_samplers,
    sd_samplers_common,
    shared,
)

from lazyneg.core import tag
from lazyneg.core.conditioning import swap, swap_rows
from lazyneg.core.settings import ERROR_KEY, SETTINGS, Settings, SettingsError
from lazyneg.core.tag import Picture
from lazyneg.core.window import step_of_call, step_of_sigma
from lazyneg.webui import options

JOB = "lazyneg_job"
"""Attribute of the host's processing object that holds the job, so that it dies with it."""

OVERRIDES = "lazyneg_overrides"
"""Attribute of the processing object with values that an X/Y/Z axis put in."""


@dataclass
class Job:
    """One request: its settings, and what the batch and the pass under way need.

    ``pictures`` has one entry for each picture of the batch, or one for all of them.
    """

    settings: Settings
    pictures: list[Picture]
    tag_error: bool = False
    early: Any = None
    checkpoint: Any = None
    sigmas: Sequence[float] = field(default_factory=list)


def start_job(p: Any, args: Sequence[object]) -> None:
    """Reads the settings of a request onto its processing object."""
    _forget(p)
    try:
        settings = Settings.parse(_values(args, getattr(p, OVERRIDES, {})))
    except SettingsError as error:
        _report(p, str(error))
        # A tag in the prompt acts as it will when the picture's infotext is pasted.
        settings = Settings()
    acts = settings.delays() or settings.delays(hires_pass=True)
    prompts = (*p.all_prompts, *(getattr(p, "all_hr_prompts", None) or ()))
    if acts or options.infotext_at_zero() or any(map(_tags, prompts)):
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
    batch = slice(number * p.batch_size, (number + 1) * p.batch_size)
    prompts = p.all_prompts[batch]
    hires_prompts = (getattr(p, "all_hr_prompts", None) or p.all_prompts)[batch]
    for prompt, hires_prompt in zip(prompts, hires_prompts):
        # The host leaves an inherited hires prompt out of the infotext: the same text is no own.
        hires_tags = None if hires_prompt == prompt else _tags(hires_prompt)
        try:
            job.pictures.append(Picture.of(job.settings, _tags(prompt), hires_tags))
        except SettingsError as error:
            job.pictures.append(Picture.of(job.settings, ()))
            if ERROR_KEY not in p.extra_generation_params:
                job.tag_error = True
                p.extra_generation_params[ERROR_KEY] = str(error)
            p.comment(f"Lazy Negative ignores a tag: {error}")


def start_pass(p: Any) -> None:
    """Encodes the empty prompt for the pass about to start, while the text encoder is at hand."""
    job = getattr(p, JOB, None)
    hires_pass = _is_hires_pass(p)
    if job is None or not any(picture.delays(hires_pass=hires_pass) for picture in job.pictures):
        return
    try:
        _encode(p, job)
    except Exception as error:
        errors.report("Lazy Negative could not encode the empty prompt", exc_info=True)
        _report(p, f"the empty prompt could not be encoded: {error}")


def on_cfg_denoiser(params: Any) -> None:
    """Swaps the unconditional conditioning in the steps without the negative prompt."""
    p = params.denoiser.p
    job = getattr(p, JOB, None)
    # Forge does without an unconditional conditioning at guidance 1.
    if job is None or params.text_uncond is None:
        return
    windows = [
        picture.window(params.denoiser.steps, hires_pass=_is_hires_pass(p))
        for picture in job.pictures
    ]
    if all(window.everywhere for window in windows):
        return
    step = _step(job, params)
    empty = [not window.active(step) for window in windows]
    if not any(empty):
        return
    try:
        if job.checkpoint != shared.sd_model.sd_checkpoint_info:
            _encode(p, job)
        rows = params.text_uncond.shape[0]
        early = prompt_parser.reconstruct_cond_batch(job.early * rows, params.denoiser.step)
        if all(empty):
            params.text_uncond = swap(params.text_uncond, early)
        else:
            params.text_uncond = swap_rows(
                params.text_uncond, early, empty, repeat=_has_cross_attention(shared.sd_model)
            )
    except Exception as error:
        errors.report("Lazy Negative could not swap the negative prompt", exc_info=True)
        _report(p, f"the negative prompt could not be swapped: {error}")


def _values(args: Sequence[object], overrides: Mapping[str, object]) -> dict[str, object]:
    """The API takes values by position or one dict in their place."""
    if args and isinstance(args[0], Mapping):
        values = dict(args[0])
    else:
        values = dict(zip((setting.name for setting in SETTINGS), args))
    if overrides:
        values["enabled"] = True  # an axis over a step means to use it
    return {**values, **overrides}


def _quoted(value: str) -> str:
    """The host's reader takes quotes around a value for its writer's, which adds none to this."""
    if len(value) > 1 and value[0] == value[-1] == '"' and not set(value) & set(",:\n"):
        return json.dumps(value, ensure_ascii=False)
    return value


def _tags(prompt: str) -> list[list[str]]:
    """The arguments of each of our tags, read as the host reads its extra networks."""
    found = extra_networks.parse_prompt(prompt)[1].get(tag.NAME, [])
    return [params.items for params in found]


def _has_cross_attention(model: Any) -> bool:
    return any(getattr(model, name, False) for name in ("is_sd1", "is_sd2", "is_sdxl"))


def _forget(p: Any) -> None:
    """Takes away what an earlier run left: some scripts run one processing object many times."""
    p.__dict__.pop(JOB, None)
    for key in (*(setting.infotext for setting in SETTINGS), ERROR_KEY):
        p.extra_generation_params.pop(key, None)


def _report(p: Any, message: str) -> None:
    """Switches the job off and says why: under the picture, and in the infotext for the API."""
    _forget(p)
    p.extra_generation_params[ERROR_KEY] = message
    p.comment(f"Lazy Negative is off for this picture: {message}")


def _is_hires_pass(p: Any) -> bool:
    return bool(getattr(p, "is_hr_pass", False))


def _encode(p: Any, job: Job) -> None:
    """Has the host encode the early prompt, as it would a negative prompt of this pass."""
    if _is_hires_pass(p):
        size = (p.hr_upscale_to_x, p.hr_upscale_to_y)
        networks = p.hr_extra_network_data
        config = sd_samplers.find_sampler_config(p.hr_sampler_name or p.sampler_name)
        hires_steps = p.hr_second_pass_steps or p.steps
        hires_steps = config.total_steps(hires_steps) if config else hires_steps
        distilled = getattr(p, "hr_distilled_cfg", None)
    else:
        size = (p.width, p.height)
        networks = p.extra_network_data
        hires_steps = None
        distilled = getattr(p, "distilled_cfg_scale", None)
    about = {} if distilled is None else {"distilled_cfg_scale": distilled}
    prompts = prompt_parser.SdConditioning(
        [job.settings.early_prompt],
        is_negative_prompt=True,
        width=size[0],
        height=size[1],
        **about,
    )
    # What the host notes for the infotext meanwhile would only reach the pictures after this one.
    # (Forge notes nothing there.)
    notes = getattr(sd_hijack.model_hijack, "extra_generation_params", {})
    noted = dict(notes)
    try:
        job.early = p.get_conds_with_caching(
            prompt_parser.get_learned_conditioning,
            prompts,
            p.firstpass_steps,
            [_host_cache(p, size, hires_steps is not None)],
            networks,
            hires_steps,
        )
    finally:
        notes.clear()
        notes.update(noted)
    job.checkpoint = shared.sd_model.sd_checkpoint_info


_caches: dict[bool, tuple[tuple[int, int], object, list[Any]]] = {}
"""A cache of the host's kind for each kind of pass, with what the host's key leaves out: the size,
and the host's own cache."""


def _host_cache(p: Any, size: tuple[int, int], hires_pass: bool) -> list[Any]:
    """A cache that the host checks against everything else the conditioning depends on.

    It lives as long as the host's own. Hosts drop theirs by putting others in their place: after
    a job if none is to be kept, and in Forge where another text encoder is put under the same
    checkpoint, which no key tells.
    """
    known = _caches.get(hires_pass)
    if known is None or known[0] != size or known[1] is not p.cached_uc:
        known = _caches[hires_pass] = (size, p.cached_uc, [None, None, None])
    return known[2]


def _step(job: Job, params: Any) -> int:
    """The sampler step that this denoiser call serves."""
    denoiser = params.denoiser
    given = inspect.signature(denoiser.sampler.func).parameters.keys()
    if denoiser.total_steps != denoiser.steps or given & {"n", "sigma_sched", "timesteps"}:
        return step_of_call(denoiser.step, denoiser.total_steps, denoiser.steps)
    # The host expects one call a step, also of samplers that make more of them.
    if "sigmas" in given and (step := _loop_step(denoiser.sampler.func)) is not None:
        return step
    # No loop over a schedule: the sampler chooses its own steps.
    if denoiser.step == 0:
        job.sigmas = _sigmas(denoiser)
    return step_of_sigma(params.sigma[0].item(), job.sigmas)


def _loop_step(sampler: Callable[..., object]) -> int | None:
    """The loop counter of a k-diffusion sampler function, which is running further up the stack.

    What the host hands over does not tell the second evaluation of a step from the first one of
    the next: noise level, position and the step last reported are the same.
    """
    code = getattr(inspect.unwrap(sampler), "__code__", None)
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    step = frame.f_locals.get("i") if frame is not None else None
    return step if isinstance(step, int) else None


def _sigmas(denoiser: Any) -> list[float]:
    """The schedule that the host built for this pass: ``denoiser.steps`` levels and a closing 0."""
    p = denoiser.p
    if _is_hires_pass(p):
        steps, _ = sd_samplers_common.setup_img2img_steps(p, p.hr_second_pass_steps or p.steps)
    elif isinstance(p, processing.StableDiffusionProcessingImg2Img):
        steps, _ = sd_samplers_common.setup_img2img_steps(p)
    else:
        steps = denoiser.steps
    sigmas: list[float] = denoiser.sampler.get_sigmas(p, steps).tolist()
    return sigmas[-(denoiser.steps + 1) :]
