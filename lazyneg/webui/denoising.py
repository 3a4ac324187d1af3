"""Each pass: the empty conditioning ahead of it, and the swap in its steps."""

from __future__ import annotations

from typing import Any

from modules import errors, prompt_parser, shared

from lazyneg.core.conditioning import swap, swap_rows
from lazyneg.webui.host.encoding import encode
from lazyneg.webui.host.passes import is_hires_pass, own_uncond
from lazyneg.webui.host.steps import StepCounter
from lazyneg.webui.job import JOB, Job, report


def start_pass(p: Any) -> None:
    """Encodes the empty prompt for the pass about to start, while the text encoder is at hand."""
    job = getattr(p, JOB, None)
    hires_pass = is_hires_pass(p)
    if job is None or not any(picture.delays(hires_pass=hires_pass) for picture in job.pictures):
        return
    try:
        _encode(p, job)
    except Exception as error:
        errors.report("Lazy Negative could not encode the empty prompt", exc_info=True)
        report(p, f"the empty prompt could not be encoded: {error}")


def on_cfg_denoiser(params: Any) -> None:
    """Swaps the unconditional conditioning in the steps without the negative prompt."""
    denoiser = params.denoiser
    p = denoiser.p
    job = getattr(p, JOB, None)
    if job is None:
        return
    windows = [
        picture.window(denoiser.steps, hires_pass=is_hires_pass(p)) for picture in job.pictures
    ]
    if all(window.everywhere for window in windows):
        return
    try:
        if job.counter is None or job.counter.denoiser is not denoiser or denoiser.step == 0:
            job.counter = StepCounter(denoiser)
        step = job.counter.step(params.sigma)
        empty = [not window.active(step) for window in windows]
        # Forge does without an unconditional conditioning at guidance 1.
        if params.text_uncond is None or not any(empty):
            return
        if job.early_beside is not own_uncond(p):
            _encode(p, job)
        rows = params.text_uncond.shape[0]
        early = prompt_parser.reconstruct_cond_batch(job.early * rows, denoiser.step)
        if all(empty):
            params.text_uncond = swap(params.text_uncond, early)
        else:
            params.text_uncond = swap_rows(
                params.text_uncond, early, empty, repeat=_has_cross_attention(shared.sd_model)
            )
    except Exception as error:
        errors.report("Lazy Negative could not swap the negative prompt", exc_info=True)
        report(p, f"the negative prompt could not be swapped: {error}")


def _encode(p: Any, job: Job) -> None:
    job.early = encode(p, job.settings.early_prompt)
    job.early_beside = own_uncond(p)


def _has_cross_attention(model: Any) -> bool:
    return any(getattr(model, name, False) for name in ("is_sd1", "is_sd2", "is_sdxl"))
