"""A helper extension that only the host tests load.

It does on request what no user can ask for by the API:

- ``reference``: picks the empty conditioning for chosen denoiser calls, outside of the denoiser
  and without the extension under test: by the turn of the sampler's loop, by how many calls, or by
  noise level;
- ``choice``: chooses where and while the negative prompt acts, outside of the denoiser too, and
  tells in which calls it did, and for how many pictures each call had it in question;
- ``rows``: counts the rows that the model runs in each denoiser call;
- ``calls``: tells the turn of each denoiser call;
- ``contract``: tells what the host lacks of what the extension under test relies on;
- ``fail``: raises in another extension's code, or in that of the extension under test;
- ``stop``: interrupts or skips in the middle of a run;
- ``mark``: does to the conditionings what ControlNet's extension does;
- ``log``: counts the texts that the host encodes;
- ``comments``: tells what the page shows under the picture;
- ``tags``: adds a text to each picture's prompt, as extensions that write prompts do.

It also brings samplers in the ways in which hosts write them.
"""

import copy
import importlib.util
import itertools
import math
import sys

import torch
import tqdm.auto
from modules import (
    devices,
    prompt_parser,
    script_callbacks,
    scripts,
    sd_samplers,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    sd_samplers_timesteps,
    shared,
)

import lazyneg.webui.denoising
import lazyneg.webui.host.third_row
from lazyneg.core.guidance import Guidance
from lazyneg.webui.host import needs

if importlib.util.find_spec("modules_forge") is None:
    sys.path.append(scripts.basedir())
    import small_models  # noqa: F401


class Turn:
    """The turn that the running sampler's loop is in; ``None`` outside of one."""

    now = None


def watched(trange):
    """A ``trange`` whose turns are told."""

    def turns(*args, **kwargs):
        try:
            for turn in trange(*args, **kwargs):
                Turn.now = turn
                yield turn
        finally:
            Turn.now = None

    return turns


# Samplers loop by a ``trange`` of their own module.
trange = watched(tqdm.auto.trange)
for module in list(sys.modules.values()):
    if getattr(module, "trange", None) is tqdm.auto.trange and module is not tqdm.auto:
        module.trange = trange


@torch.no_grad()
def two_calls(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Heun's method, of whose second calls the host knows nothing: samplers of the Forge family."""
    for i in trange(len(sigmas) - 1, disable=disable):
        slope = (x - model(x, sigmas[i] * x.new_ones([len(x)]), **extra_args)) / sigmas[i]
        ahead = x + slope * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            denoised = model(ahead, sigmas[i + 1] * x.new_ones([len(x)]), **extra_args)
            slope = (slope + (ahead - denoised) / sigmas[i + 1]) / 2
        x = x + slope * (sigmas[i + 1] - sigmas[i])
    return x


class Churning:
    """Adds noise ahead of each step, in a method, over pairs: the host's function only calls it."""

    def run(self, model, x, schedule, extra_args):
        for step, (level, after) in enumerate(itertools.pairwise(schedule)):
            Turn.now = step
            raised = 1.4 * level
            denoised = model(x * raised / level, raised * x.new_ones([len(x)]), **extra_args)
            x = denoised + (x - denoised) * after / level
        Turn.now = None
        return x


def wrapper(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return Churning().run(model, x, sigmas, extra_args)


@torch.no_grad()
def first_apart(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Makes two calls ahead of its loop, which then runs over the rest."""

    def step(x, level, after):
        denoised = model(x, level * x.new_ones([len(x)]), **extra_args)
        middle = (level * after) ** 0.5 if after > 0 else level / 2
        half = denoised + (x - denoised) * middle / level
        denoised = model(half, middle * x.new_ones([len(x)]), **extra_args)
        return denoised + (x - denoised) * after / level

    x = step(x, sigmas[0], sigmas[1])
    sigmas = sigmas[1:]
    for i in trange(len(sigmas) - 1, disable=disable):
        x = step(x, sigmas[i], sigmas[i + 1])
    return x


@torch.no_grad()
def last_apart(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Makes its last step behind its loop, from where the loop's last step began."""
    levels = x.new_ones([len(x)])
    for i in trange(len(sigmas) - 2, disable=disable):
        denoised = model(x, sigmas[i] * levels, **extra_args)
        x = denoised + (x - denoised) * sigmas[i + 1] / sigmas[i]
    return (x + model(x, sigmas[len(sigmas) - 3] * levels, **extra_args)) / 2


for name, function in (
    ("Last apart", last_apart),
    ("Two calls", two_calls),
    ("Thin wrapper", wrapper),
    ("First apart", first_apart),
):
    sd_samplers.all_samplers.append(
        sd_samplers_common.SamplerData(
            name,
            lambda model, function=function: sd_samplers_kdiffusion.KDiffusionSampler(
                function, model
            ),
            [name.lower()],
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
        if wanted.get("calls"):
            tell_calls(p)
        if "reference" in wanted:
            use_reference(p, wanted["reference"])
        # Forge says twice that a hires pass begins.
        if "choice" in wanted and not hasattr(p.sampler, "chooses"):
            p.sampler.chooses = True
            use_choice(p, wanted["choice"])
        if wanted.get("rows"):
            count_rows(p)
        if wanted.get("fail") == "before sampling":
            raise RuntimeError("asked to fail before sampling")

    def postprocess(self, p, processed, wanted):
        if (wanted or {}).get("comments"):
            p.extra_generation_params["Comments"] = list(p.comments)

    def process(self, p, wanted):
        if tags := (wanted or {}).get("tags"):
            p.all_prompts = [prompt + tag for prompt, tag in zip(p.all_prompts, tags)]
        # The host draws from its VAE's encoder without a seed.
        torch.manual_seed(0)
        if (wanted or {}).get("fail") == "process":
            raise RuntimeError("asked to fail in process")
        if (wanted or {}).get("fail") in ("swap", "_encode", "Guidance"):
            break_once(lazyneg.webui.denoising, wanted["fail"])
        if (wanted or {}).get("fail") == "guidance":
            break_once(Guidance, "uncond")
        if (wanted or {}).get("fail") == "row":
            break_once(lazyneg.webui.host.third_row, "_of_rows")


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


def tell_calls(p):
    """Notes for each denoiser call of the first pass which turn of the sampler's loop it is in."""
    calls = {"turns": []}
    if isinstance(p.sampler, sd_samplers_timesteps.CompVisSampler):
        calls["timesteps"] = True
    p.extra_generation_params["Calls"] = calls
    denoiser = p.sampler.model_wrap_cfg
    forward = denoiser.forward

    def noting(*args, **kwargs):
        calls["turns"].append(Turn.now)
        calls["planned"] = denoiser.total_steps
        return forward(*args, **kwargs)

    denoiser.forward = noting


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
    ahead = []

    def within(place, begin, end):
        return place >= begin and place < (end or math.inf)

    def acts(sigma):
        if "from_call" in wanted:
            return within(len(calls) - 1, wanted["from_call"], wanted.get("to_call"))
        if "from_turn" in wanted:
            if Turn.now is None:
                ahead.append(sigma)
                # Ahead of the loop, or behind it.
                turn = 0 if len(ahead) == len(calls) else 10**9
            else:
                turn = Turn.now + bool(ahead)
            return within(turn, wanted["from_turn"], wanted.get("to_turn"))

        def level(step):
            first = schedule.index(min(schedule, key=lambda level: abs(level - calls[0])))
            return schedule[min(first + step, len(schedule) - 1)]

        stop = wanted.get("to_sigma")
        return sigma <= level(wanted["from_sigma"]) and (not stop or sigma > level(stop))

    def reference(x, sigma, uncond, **kwargs):
        calls.append(sigma[0].item())
        # Some hosts do without one at guidance 1.
        chosen = uncond if uncond is None or acts(calls[-1]) else empty
        return forward(x, sigma, chosen, **kwargs)

    denoiser.forward = reference
    if "from_sigma" in wanted:
        get_sigmas = sampler.get_sigmas

        def remember(*args):
            sigmas = get_sigmas(*args)
            schedule[:] = sigmas.tolist()
            return sigmas

        sampler.get_sigmas = remember


def use_choice(p, wanted):
    """Wraps the denoiser of the pass about to start: three guided calls for each.

    With no guidance, what a call gives is the output for the conditioning that stands for the
    negative prompt.
    """
    sampler = p.sampler
    denoiser = sampler.model_wrap_cfg
    forward = denoiser.forward
    size = (p.hr_upscale_to_x, p.hr_upscale_to_y) if p.is_hr_pass else (p.width, p.height)
    texts = prompt_parser.SdConditioning(
        [""] * len(p.prompts), is_negative_prompt=True, width=size[0], height=size[1]
    )
    with devices.autocast():
        empty = prompt_parser.get_learned_conditioning(shared.sd_model, texts, 1)
    guidances = [Guidance(wanted["area"], wanted["adaptive"]) for _ in p.prompts]
    acted = [[] for _ in p.prompts]
    asked = []
    for name, told in (("Choice", acted), ("Asked", asked)):
        passes = p.extra_generation_params.setdefault(name, {})
        passes["hires" if p.is_hr_pass else "first"] = told

    def reference(x, sigma, uncond, cond, cond_scale, **kwargs):
        call = denoiser.step
        if call < wanted.get("from_call", 0):
            return forward(x, sigma, empty, cond=cond, cond_scale=cond_scale, **kwargs)
        hires_scale, p.hr_cfg = getattr(p, "hr_cfg", None), 0.0

        def output(conditioning):
            denoiser.step = call
            return forward(x, sigma, conditioning, cond=cond, cond_scale=0.0, **kwargs)

        parts = [[part.schedules for part in parts] for parts in cond.batch]
        weights = [part.weight for part in cond.batch[0]]
        for_parts = [output([schedules[i] for schedules in parts]) for i in range(len(weights))]
        negative = output(uncond)
        without = output(empty)
        p.hr_cfg = hires_scale
        scale = hires_scale if p.is_hr_pass and hires_scale is not None else cond_scale
        denoised = []
        asked.append(sum(not guidance.over for guidance in guidances))
        for i, guidance in enumerate(guidances):
            chosen = without[i]
            if not guidance.over:
                pull = sum(w * (part[i] - chosen) for w, part in zip(weights, for_parts))
                chosen = guidance.uncond(chosen + pull, chosen, negative[i], channels=0)
                if guidance.acted:
                    acted[i].append(call)
            pulls = [w * scale * (part[i] - chosen) for w, part in zip(weights, for_parts)]
            denoised.append(chosen + sum(pulls))
        return torch.stack(denoised)

    denoiser.forward = reference


def count_rows(p):
    """Notes for each denoiser call of a pass how many rows the model runs in it."""
    denoiser = p.sampler.model_wrap_cfg
    forward = denoiser.forward
    calls = []
    told = p.extra_generation_params.setdefault("Rows", {})
    told["hires" if p.is_hr_pass else "first"] = calls

    def counted(*args, **kwargs):
        model = shared.sd_model
        model = model.forge_objects.unet.model if hasattr(model, "forge_objects") else model.model
        calls.append([])
        hook = model.diffusion_model.register_forward_pre_hook(
            lambda _, given: calls[-1].append(len(given[0]))
        )
        try:
            return forward(*args, **kwargs)
        finally:
            hook.remove()

    denoiser.forward = counted


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


def broken_contract(params):
    """What the host lacks of what the extension relies on while a picture is made."""
    p = params.denoiser.p
    owners = {
        "p": p,
        "hires": p if p.is_hr_pass else None,
        "params": params,
        "denoiser": params.denoiser,
        "sampler": params.denoiser.sampler,
        "shared": shared,
        "sd_model": shared.sd_model,
        "opts": shared.opts,
        "cmd_opts": shared.cmd_opts,
    }
    return [
        f"{owner}.{name}"
        for owner, names in needs.ATTRIBUTES.items()
        for name in names
        if owners[owner] is not None and not hasattr(owners[owner], name)
    ]


def stop_or_fail(params):
    p = params.denoiser.p
    wanted = getattr(p, "support", {})
    if wanted.get("contract"):
        p.extra_generation_params["Contract"] = {"missing": broken_contract(params)}
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
