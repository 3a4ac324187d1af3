"""A helper extension that only the host tests load.

It makes small checkpoints loadable, and does on request what no user can ask for by the API:

- ``reference``: picks the empty conditioning for chosen denoiser calls, outside of the denoiser
  and without the extension under test, from how many calls or which noise level it is told;
- ``fail``: raises in another extension's code, or in that of the extension under test;
- ``stop``: interrupts or skips in the middle of a run;
- ``mark``: does to the conditionings what ControlNet's extension does;
- ``log``: counts the texts that the host encodes.

It also brings a sampler that makes more denoiser calls than the host is told.
"""

import copy
import math
from pathlib import Path

import open_clip
import torch
from modules import (
    devices,
    prompt_parser,
    script_callbacks,
    scripts,
    sd_samplers,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    shared,
)
from modules.models.sd3 import sd3_cond, sd3_impls

import lazyneg.webui.denoising

open_clip.add_model_config(Path(__file__).parents[1] / "open_clip")

SMALL_CLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
}
sd3_cond.CLIPL_CONFIG.update(SMALL_CLIP)
sd3_cond.CLIPG_CONFIG.update(SMALL_CLIP)
sd3_impls.VAEEncoder.__init__.__defaults__ = (32, (1, 1, 1, 1), 1, 3, 16, torch.float32, None)
sd3_impls.VAEDecoder.__init__.__defaults__ = (32, 3, (1, 1, 1, 1), 1, 256, 16, torch.float32, None)


@torch.no_grad()
def two_calls(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Heun's method, of whose second calls the host knows nothing: samplers of the Forge family."""
    for i in range(len(sigmas) - 1):
        slope = (x - model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args)) / sigmas[i]
        ahead = x + slope * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            denoised = model(ahead, sigmas[i + 1] * x.new_ones([len(x)]), **extra_args)
            slope = (slope + (ahead - denoised) / sigmas[i + 1]) / 2
        x = x + slope * (sigmas[i + 1] - sigmas[i])
    return x


sd_samplers.all_samplers.append(
    sd_samplers_common.SamplerData(
        "Two calls",
        lambda model: sd_samplers_kdiffusion.KDiffusionSampler(two_calls, model),
        ["two_calls"],
        {},
    )
)
sd_samplers.all_samplers_map = {sampler.name: sampler for sampler in sd_samplers.all_samplers}
sd_samplers.set_samplers()


class Support(scripts.Script):
    def title(self):
        return "Test support"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        import gradio as gr

        return [gr.JSON(value=None, visible=False)]

    def before_process(self, p, wanted):
        p.support = wanted or {}
        if p.support.get("log"):
            log_encoded_texts(p)

    def process_before_every_sampling(self, p, wanted, **kwargs):
        wanted = wanted or {}
        if wanted.get("mark"):
            mark(p)
        if "reference" in wanted:
            use_reference(p, wanted["reference"])
        if wanted.get("fail") == "before sampling":
            raise RuntimeError("asked to fail before sampling")

    def process(self, p, wanted):
        # The host draws from its VAE's encoder without a seed.
        torch.manual_seed(0)
        if (wanted or {}).get("fail") == "process":
            raise RuntimeError("asked to fail in process")
        if (wanted or {}).get("fail") in ("swap", "_encode"):
            break_once(lazyneg.webui.denoising, wanted["fail"])


def break_once(owner, name):
    """The next call fails, in the code of the extension under test."""
    working = getattr(owner, name)

    def broken(*args, **kwargs):
        setattr(owner, name, working)
        raise RuntimeError("asked to fail")

    setattr(owner, name, broken)


def log_encoded_texts(p):
    model = shared.sd_model
    texts = []
    # A bare list would be taken for one value a picture.
    p.extra_generation_params["Encoded"] = {"texts": texts}
    encode = type(model).get_learned_conditioning

    def logged(batch):
        texts.extend(batch)
        return encode(model, batch)

    model.get_learned_conditioning = logged


def use_reference(p, wanted):
    """Wraps the denoiser of the pass about to start."""
    wanted = wanted["hires"] if p.is_hr_pass else wanted["first"]
    if wanted is None:
        return
    sampler = p.sampler
    denoiser = sampler.model_wrap_cfg
    forward = denoiser.forward
    size = (p.hr_upscale_to_x, p.hr_upscale_to_y) if p.is_hr_pass else (p.width, p.height)
    prompts = prompt_parser.SdConditioning(
        [wanted.get("text", "")] * len(p.prompts),
        is_negative_prompt=True,
        width=size[0],
        height=size[1],
    )
    with devices.autocast():
        empty = prompt_parser.get_learned_conditioning(shared.sd_model, prompts, 1)
    schedule = []
    calls = []

    def acts(sigma):
        if "from_sigma_of_step" not in wanted:
            call = len(calls) - 1
            return call >= wanted["from_call"] and call < (wanted.get("to_call") or math.inf)

        def level(step):
            first = schedule.index(min(schedule, key=lambda level: abs(level - calls[0])))
            return schedule[min(first + step, len(schedule) - 1)]

        stop = wanted.get("to_sigma_of_step")
        return sigma <= level(wanted["from_sigma_of_step"]) and (not stop or sigma > level(stop))

    def reference(x, sigma, uncond, **kwargs):
        calls.append(sigma[0].item())
        return forward(x, sigma, uncond if acts(calls[-1]) else empty, **kwargs)

    denoiser.forward = reference
    if "from_sigma_of_step" in wanted:
        get_sigmas = sampler.get_sigmas

        def remember(*args):
            sigmas = get_sigmas(*args)
            schedule[:] = sigmas.tolist()
            return sigmas

        sampler.get_sigmas = remember


def mark(p):
    """An extra first token tells positive (+1024) from negative (-1024), as for ControlNet."""
    sampler = p.sampler
    denoiser = sampler.model_wrap_cfg
    forward, inner = denoiser.forward, denoiser.inner_model
    signs = []
    p.extra_generation_params["Marks"] = {"signs": signs}

    def marked(schedules, sign):
        return [
            [step._replace(cond=torch.cat([step.cond[:1] * 0 + sign, step.cond])) for step in steps]
            for steps in schedules
        ]

    def with_marks(x, sigma, uncond, cond, **kwargs):
        cond = copy.deepcopy(cond)  # the host keeps it for later requests
        for alternatives in cond.batch:
            for alternative in alternatives:
                alternative.schedules = marked([alternative.schedules], 1024)[0]
        return forward(x, sigma, marked(uncond, -1024), cond=cond, **kwargs)

    class WithoutMarks(torch.nn.Module):
        sigmas = inner.sigmas

        def forward(self, x, sigma, cond):
            context = cond["c_crossattn"][0]
            marked = context[:, 0].abs().eq(1024).all(dim=1)
            signs.append((context[:, 0, 0].sign() * marked).int().tolist())
            return inner(x, sigma, cond={**cond, "c_crossattn": [context[:, 1:]]})

    denoiser.forward = with_marks
    denoiser.model_wrap = WithoutMarks()


def stop_or_fail(params):
    p = params.denoiser.p
    wanted = getattr(p, "support", {})
    if params.denoiser.step == wanted.get("at_call", 2):
        if wanted.get("stop") == "interrupt":
            shared.state.interrupt()
        if wanted.get("stop") == "skip":
            shared.state.skip()
        if wanted.get("stop") == "crash":
            params.text_cond = None  # the host itself breaks on this
        if wanted.get("fail") == "callback":
            raise RuntimeError("asked to fail in the callback")


script_callbacks.on_cfg_denoiser(stop_or_fail)
