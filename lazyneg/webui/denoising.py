"""Each pass: the empty conditioning ahead of it, and the swap in its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules import errors, prompt_parser, shared

from lazyneg.core.conditioning import swap, swap_rows
from lazyneg.core.guidance import Guidance
from lazyneg.webui.host import third_row
from lazyneg.webui.host.encoding import encode
from lazyneg.webui.host.passes import is_hires_pass, own_uncond
from lazyneg.webui.host.steps import StepCounter
from lazyneg.webui.job import JOB, Job, PassUnderWay, report


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
    """Swaps the unconditional conditioning in the steps without the negative prompt.

    Where the picture chooses, the negative prompt is kept out of all steps, and run on its own in
    those in which it may act.
    """
    denoiser = params.denoiser
    p = denoiser.p
    job: Job | None = getattr(p, JOB, None)
    if job is None or job.idle:
        return
    now = job.under_way
    if now is not None and now.over and now.counter.denoiser is denoiser and denoiser.step:
        return
    hires_pass = is_hires_pass(p)
    windows = [picture.window(denoiser.steps, hires_pass=hires_pass) for picture in job.pictures]
    chooses = job.settings.chooses
    if all(window.everywhere for window in windows) and not chooses:
        return
    try:
        if now is None or now.counter.denoiser is not denoiser or denoiser.step == 0:
            now = job.under_way = _begun(job, denoiser, hires_pass)
            if chooses and (reason := third_row.refusal()):
                report(p, f"area and adaptive cannot be had here, as {reason}")
                return
        step = now.counter.step(params.sigma)
        active = [window.active(step) for window in windows]
        # Forge does without an unconditional conditioning at guidance 1.
        if params.text_uncond is None or (all(active) and not chooses):
            now.over = (
                not chooses
                and now.counter.forward
                and all(window.stays_active(step) for window in windows)
            )
            return
        if job.early_beside is not own_uncond(p):
            _encode(p, job)
        size = params.text_uncond.shape[0]
        early = prompt_parser.reconstruct_cond_batch(job.early * size, denoiser.step)
        if chooses:
            if len(active) != size:
                raise ValueError(f"{len(active)} prompts for {size} rows")
            rows = [i for i, acts in enumerate(active) if acts and not now.guidances[i].over]
            negative, active = params.text_uncond, [False]
        if not any(active):
            params.text_uncond = swap(params.text_uncond, early)
        else:
            params.text_uncond = swap_rows(
                params.text_uncond,
                early,
                [not acts for acts in active],
                repeat=_has_cross_attention(shared.sd_model),
            )
        if chooses and rows:
            put = _state(params.text_uncond)
            third_row.ask(params, _Choice(p, job, step, rows, negative, params, put))
    except Exception as error:
        errors.report("Lazy Negative could not swap the negative prompt", exc_info=True)
        report(p, f"the negative prompt could not be swapped: {error}")


def _begun(job: Job, denoiser: Any, hires_pass: bool) -> PassUnderWay:
    """The pass that begins with the denoiser call under way."""
    settings = job.settings
    for i in range(len(job.pictures)):
        job.acted[job.first + i, hires_pass] = set()
    return PassUnderWay(
        StepCounter(denoiser),
        [Guidance(settings.area, settings.adaptive) for _ in job.pictures],
    )


@dataclass(frozen=True)
class _Choice:
    """Chooses the unconditional outputs of one denoiser call, for the pictures in ``rows``.

    ``put`` is the state of the unconditional conditioning as it was put into ``params``.
    """

    p: Any
    job: Job
    step: int
    rows: list[int]
    negative: Any
    params: Any
    put: list[tuple[int, int]]

    def __call__(self, outputs: third_row.Outputs) -> bool:
        now = self.job.under_way
        assert now is not None
        if _state(self.params.text_uncond) != self.put:
            self.p.comment(
                "Lazy Negative: another extension changes the unconditional conditioning, and with "
                "area or adaptive the negative prompt goes without that change"
            )
        try:
            negative = outputs.run(self.negative, self.rows)
            chosen = {}
            for row, output in zip(self.rows, negative):
                guidance = now.guidances[row]
                cond, empty = outputs.cond(row), outputs.uncond[row]
                uncond = guidance.uncond(cond, empty, output, channels=0)
                if guidance.acted:
                    chosen[row] = uncond
        except Exception as error:
            errors.report("Lazy Negative could not choose where its prompt acts", exc_info=True)
            report(self.p, f"the negative prompt could not be run on its own: {error}")
            return False
        hires_pass = is_hires_pass(self.p)
        for row, uncond in chosen.items():
            outputs.uncond[row] = uncond
            self.job.acted[self.job.first + row, hires_pass].add(self.step)
        return bool(chosen)


def _state(conditioning: Any) -> list[tuple[int, int]]:
    """What tells whether a conditioning was replaced, or written to where PyTorch keeps count."""
    parts = conditioning.values() if isinstance(conditioning, Mapping) else [conditioning]
    return [(id(part), 0 if part.is_inference() else part._version) for part in parts]


def _encode(p: Any, job: Job) -> None:
    job.early = encode(p, job.settings.early_prompt)
    job.early_beside = own_uncond(p)


def _has_cross_attention(model: Any) -> bool:
    return any(getattr(model, name, False) for name in ("is_sd1", "is_sd2", "is_sdxl"))
