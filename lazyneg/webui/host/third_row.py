"""One more conditioning in a denoiser call of the host, and another unconditional output for it.

Both come between the host's own batch and the guidance that it makes of the outputs: what is
written there is what the host, and whatever changes its guidance, takes for the unconditional one.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from modules import sd_samplers_cfg_denoiser, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser

from lazyneg.webui.host import needs

try:
    from backend.sampling.condition import compile_conditions
    from backend.sampling.sampling_function import calc_cond_uncond_batch, sampling_function_inner
except ImportError:  # A1111, reForge
    sampling_function_inner = None
    try:
        from ldm_patched.modules.samplers import calc_cond_uncond_batch
        from modules_forge.forge_sampler import cond_from_a1111_to_patched_ldm as compile_conditions
    except ImportError:  # A1111
        calc_cond_uncond_batch = compile_conditions = None

if TYPE_CHECKING:
    from torch import Tensor

_TAKE = "lazyneg_take"
"""Attribute of the host's parameters of a denoiser call, so that it dies with the call."""

_ASKED = "lazyneg_asked"
"""Attribute of A1111's inner model, which dies with the pass: whether one is asked for in the call
under way. To find the parameters takes far longer than to look here."""

_RANDOM = "lazyneg_random"
"""Attribute of these parameters: the state of the random numbers when one was asked for."""

BY_CALLBACK = calc_cond_uncond_batch is None
"""Whether the host calls back behind its batch: A1111. The Forge family never does."""

_CALL = "denoiser_params"
"""What hosts call these parameters in the functions that run the call."""


@dataclass(frozen=True)
class Outputs:
    """What the host's own batch of a denoiser call gave.

    Attributes:
        uncond: Outputs for the unconditional conditioning, ``[B, C, …]``, to be written to.
        cond: Gives the output for the prompt of one picture, ``[C, …]``: what all its parts pull
            to in sum.
        run: Runs a conditioning for some pictures of the batch; gives ``[n, C, …]``. The
            conditioning has a row for each picture of the batch.
    """

    uncond: Tensor
    cond: Callable[[int], Tensor]
    run: Callable[[Any, Sequence[int]], Tensor]


Take = Callable[[Outputs], bool]
"""Looks at outputs, and tells whether it has written to them. Must not fail."""


def shortcoming() -> str | None:
    """Why no conditioning can be added on this host; ``None`` where one can."""
    checked = [(CFGDenoiser.forward, needs.LOCALS["all"])]
    if sampling_function_inner is not None:
        checked.append((sampling_function_inner, needs.LOCALS["Forge"]))
    elif calc_cond_uncond_batch is None:
        checked.append((CFGDenoiser.forward, needs.LOCALS["A1111"]))
    lacking = [
        name
        for function, names in checked
        for name in names
        if name not in _variables(inspect.unwrap(function).__code__)
    ]
    return f"this WebUI's denoiser has no {', '.join(lacking)}" if lacking else None


def _variables(code: CodeType) -> tuple[str, ...]:
    """The local variables of a function, those that functions within it use among them."""
    return code.co_varnames + code.co_cellvars


def refusal() -> str | None:
    """Why the denoiser call under way cannot have another conditioning."""
    if _call_under_way().get("is_edit_model"):
        return "a model that edits pictures by instructions is guided three ways"
    return None


def ask(params: Any, take: Take) -> None:
    """Has ``take`` called when the host's batch of a call has run, unless it goes unguided.

    Args:
        params: What the host handed to the callback ahead of the call.
        take: See there.
    """
    setattr(params, _TAKE, take)
    setattr(params, _RANDOM, [torch.get_rng_state(), *map(torch.cuda.get_rng_state, _gpus(params))])
    if BY_CALLBACK:
        params.denoiser.inner_model.__dict__[_ASKED] = True
        return
    name, function = (
        ("sampler_pre_cfg_function", _ahead_of_guidance)
        if sampling_function_inner is None
        else ("sampler_post_cfg_function", _behind_guidance)
    )
    # Not once a pass: a refiner brings a model of its own.
    denoiser = params.denoiser
    objects = denoiser.inner_model.inner_model.forge_objects
    if function not in objects.unet.model_options.get(name, ()):
        unet = objects.unet.clone()
        # In front of all others, for which it is as if the host's outputs had been these.
        unet.model_options[name] = [function, *unet.model_options.get(name, ())]
        objects.unet = unet


def _call_under_way() -> Mapping[str, Any]:
    """The local variables of the host's function that runs the denoiser call."""
    frame = inspect.currentframe()
    while frame is not None and _CALL not in _variables(frame.f_code):
        frame = frame.f_back
    return frame.f_locals if frame is not None else {}


def _asked(call: Mapping[str, Any]) -> Take | None:
    """What is to look at the outputs of the call with these local variables."""
    return getattr(call.get(_CALL), _TAKE, None)


def behind_batch(denoised: Any) -> None:
    """A1111: the outputs of the prompts' parts and, behind them, the unconditional ones."""
    if not denoised.inner_model.__dict__.pop(_ASKED, False):
        return
    call = _call_under_way()
    take = _asked(call)
    # Unguided calls have copies in the unconditional rows.
    if take is None or call["skip_uncond"]:
        return
    params, parts = call[_CALL], call["conds_list"]
    size = len(parts)
    uncond = denoised.x[-size:]

    def cond(row: int) -> Tensor:
        return _in_sum(uncond[row], [(denoised.x[i], weight) for i, weight in parts[row]])

    def run(conditioning: Any, rows: Sequence[int]) -> Tensor:
        text, prompt = _padded(params, conditioning), params.text_cond
        own = [row - size for row in rows]
        whole = _is_changed(shared.sd_model.model.diffusion_model)
        ran: Any = own
        if not whole:
            text = _of_rows(text, rows)
        elif shared.opts.batch_cond_uncond and prompt.shape[1] == text.shape[1]:
            text, ran = sd_samplers_cfg_denoiser.catenate_conds([prompt, text]), slice(None)
        else:
            ran = slice(-size, None)
        with _random_numbers_again(params):
            output: Tensor = denoised.inner_model(
                params.x[ran],
                params.sigma[ran],
                cond=_for_inner_model(text, params.image_cond[ran]),
            )
        return output[own] if whole else output

    take(Outputs(uncond, cond, run))


def _is_changed(model: Any) -> bool:
    """Whether an extension has put something of its own into an A1111 model. That may count rows,
    or calls, and so gets the batches of the host whole.
    """
    return any(
        "forward" in vars(part)
        or (part is not model and (part._forward_hooks or part._forward_pre_hooks))
        for part in model.modules()
    )


@contextlib.contextmanager
def _random_numbers_again(params: Any) -> Iterator[None]:
    """What is drawn in the model, as ControlNet draws for a reference, is what was drawn in the
    host's own batch, and shifts nothing behind.
    """
    gpus = _gpus(params)
    with torch.random.fork_rng(gpus):
        state, *others = getattr(params, _RANDOM)
        torch.set_rng_state(state)
        for gpu, state in zip(gpus, others):
            torch.cuda.set_rng_state(state, gpu)
        yield


def _gpus(params: Any) -> list[torch.device]:
    """The device of a call, where it has random numbers of its own."""
    return [params.x.device] if params.x.is_cuda else []


def _padded(params: Any, conditioning: Any) -> Any:
    """A conditioning in the length that A1111 gives its unconditional one beside the prompt's."""
    prompt, denoiser = params.text_cond, params.denoiser
    if prompt.shape[1] != conditioning.shape[1]:
        for name in ("pad_cond_uncond_v0", "pad_cond_uncond"):
            if getattr(shared.opts, name, False):
                # It writes to mappings.
                _, padded = getattr(denoiser, name)(copy.copy(prompt), copy.copy(conditioning))
                return padded
    return conditioning


def _for_inner_model(text: Any, image: Tensor) -> dict[str, Any]:
    """A conditioning in the form in which A1111 hands it to its model."""
    if shared.sd_model.model.conditioning_key == "crossattn-adm":
        return {"c_crossattn": [text], "c_adm": image}
    texts = text if isinstance(text, dict) else {"c_crossattn": [text]}
    return {**texts, "c_concat": [image]}


def _ahead_of_guidance(args: dict[str, Any]) -> Any:
    """reForge: may change the outputs."""
    outputs = args["conds_out"]
    take = _asked(_call_under_way())
    if take is not None and args["conds"][1] is not None:
        take(_of_patcher(args, *args["conds"], *outputs))
    return outputs


def _behind_guidance(args: dict[str, Any]) -> Any:
    """Forge, Neo: may change what was made of the outputs, and so has to make it anew."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    host = frame.f_back.f_locals
    take = _asked(_call_under_way())
    if take is None or host["uncond_"] is None:
        return args["denoised"]
    x, cond, uncond = args["input"], args["cond_denoised"], args["uncond_denoised"]
    if not take(_of_patcher(args, args["cond"], args["uncond"], cond, uncond)):
        return args["denoised"]
    scale = host["cond_scale"]
    if function := args["model_options"].get("sampler_cfg_function"):
        return x - function(
            {
                "cond": x - cond,
                "uncond": x - uncond,
                "cond_scale": scale,
                "timestep": args["sigma"],
                "input": x,
                "sigma": args["sigma"],
                "cond_denoised": cond,
                "uncond_denoised": uncond,
                "model": args["model"],
                "model_options": args["model_options"],
            }
        )
    strength = _strength(args["cond"])
    if math.isclose(strength, 1):
        return uncond + (cond - uncond) * scale
    return uncond + (cond - uncond) * scale * strength


def _of_patcher(
    args: Mapping[str, Any],
    prompt: Sequence[Mapping[str, Any]],
    empty: Sequence[Mapping[str, Any]],
    cond: Tensor,
    uncond: Tensor,
) -> Outputs:
    """Outputs as the Forge family's patchers have them, for the conditionings they come from."""
    x, sigma, model, options = (args[name] for name in ("input", "sigma", "model", "model_options"))
    params = _call_under_way()[_CALL]

    def run(conditioning: Any, rows: Sequence[int]) -> Tensor:
        if len(empty) != 1 or "sampler_calc_cond_batch_function" in options:
            raise ValueError("another extension runs the unconditional conditioning its own way")
        text = compile_conditions(_of_rows(conditioning, rows))[0]
        # What is there besides a text is made for the whole batch.
        whole = empty[0].get("control") is not None or (
            empty[0]["model_conds"].keys() != text["model_conds"].keys()
        )
        ran = range(len(x)) if whole else rows
        if whole:
            text = compile_conditions(conditioning)[0]
        wanted = {
            **empty[0],
            **text,
            "model_conds": {**empty[0]["model_conds"], **text["model_conds"]},
        }
        index = list(ran)
        with _random_numbers_again(params):
            _, output = calc_cond_uncond_batch(model, [], [wanted], x[index], sigma[index], options)
        chosen: Tensor = output[list(rows)] if whole else output
        return chosen

    def in_sum(row: int) -> Tensor:
        # The host has summed up the parts by their weights, and divided by the sum of these.
        return _in_sum(uncond[row], [(cond[row], _strength(prompt))])

    return Outputs(uncond, in_sum, run)


def _strength(prompt: Sequence[Mapping[str, Any]]) -> float:
    strength: float = sum(part.get("strength", 1) for part in prompt)
    return strength


def _in_sum(uncond: Tensor, parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """What outputs for the parts of a prompt, and their weights, pull to together."""
    if len(parts) == 1 and math.isclose(parts[0][1], 1):
        return parts[0][0]
    total = uncond.clone()
    for output, weight in parts:
        total += (output - uncond) * weight
    return total


def _of_rows(conditioning: Any, rows: Sequence[int]) -> Any:
    """Some rows of a conditioning: a tensor, or a mapping of such."""
    index = list(rows)
    if isinstance(conditioning, Mapping):
        return {key: value[index] for key, value in conditioning.items()}
    return conditioning[index]
