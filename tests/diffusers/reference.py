"""What delaying the negative prompt should give, worked out without the library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

from lazyneg.core.guidance import Guidance


def sd_loop(
    pipe: Any,
    critical_step: int,
    *,
    stop_step: int | None = None,
    early_prompt: str = "",
    area: int = 100,
    adaptive: bool = False,
    interrupted_after: int | None = None,
    prompt: Any = None,
    negative_prompt: Any = None,
    prompt_embeds: Any = None,
    negative_prompt_embeds: Any = None,
    num_inference_steps: int = 5,
    guidance_scale: float = 7.5,
    guidance_rescale: float = 0.0,
    num_images_per_prompt: int = 1,
    eta: float = 0.0,
    clip_skip: int | None = None,
    cross_attention_kwargs: dict[str, Any] | None = None,
    ip_adapter_image_embeds: Any = None,
    generator: Any = None,
    height: int = 16,
    width: int = 16,
    output_type: str = "latent",
) -> torch.Tensor:
    """The loop of Stable Diffusion with one line more: which embeddings a step uses.

    With ``area`` or ``adaptive`` it also has a third row. ``interrupted_after`` is its last step.
    """
    assert output_type == "latent"
    scale = (cross_attention_kwargs or {}).get("scale")
    if prompt_embeds is None:
        count = 1 if isinstance(prompt, str) else len(prompt)
    else:
        count = len(prompt_embeds)

    def encode(**negative: Any) -> torch.Tensor:
        text, uncond = pipe.encode_prompt(
            prompt,
            "cpu",
            num_images_per_prompt,
            True,
            prompt_embeds=prompt_embeds,
            lora_scale=scale,
            clip_skip=clip_skip,
            **negative,
        )
        return torch.cat([uncond, text])

    with torch.no_grad():
        late = encode(
            negative_prompt=negative_prompt, negative_prompt_embeds=negative_prompt_embeds
        )
        early = encode(
            negative_prompt=early_prompt if isinstance(prompt, str) else [early_prompt] * count
        )
        added = None
        if ip_adapter_image_embeds is not None:
            copies = num_images_per_prompt
            added = {
                "image_embeds": [
                    torch.cat([part.repeat(copies, 1, 1) for part in embeds.chunk(2)])
                    for embeds in ip_adapter_image_embeds
                ]
            }
        pipe.scheduler.set_timesteps(num_inference_steps)
        latents = pipe.prepare_latents(
            count * num_images_per_prompt, 4, height, width, late.dtype, "cpu", generator
        )
        extra = pipe.prepare_extra_step_kwargs(generator, eta)
        chooses = area < 100 or adaptive
        guidances = [Guidance(area, adaptive) for _ in latents]
        for i, t in enumerate(pipe.scheduler.timesteps):
            acts = critical_step <= i and (stop_step is None or i < stop_step)
            scaled = pipe.scheduler.scale_model_input(torch.cat([latents] * 2), t)
            noise = pipe.unet(
                scaled,
                t,
                encoder_hidden_states=late if acts and not chooses else early,
                cross_attention_kwargs=cross_attention_kwargs,
                added_cond_kwargs=added,
            ).sample
            uncond, text = noise.chunk(2)
            if acts and chooses:
                count = len(latents)
                negative = pipe.unet(
                    scaled[:count],
                    t,
                    encoder_hidden_states=late[:count],
                    cross_attention_kwargs=cross_attention_kwargs,
                    added_cond_kwargs=added
                    and {key: [part[:count] for part in parts] for key, parts in added.items()},
                ).sample
                pictures = zip(guidances, text, uncond, negative, strict=True)
                uncond = torch.stack([one.uncond(p, e, n, 0) for one, p, e, n in pictures])
            guided = uncond + guidance_scale * (text - uncond)
            if guidance_rescale:
                dims = list(range(1, text.ndim))
                rescaled = guided * (
                    text.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
                )
                guided = guidance_rescale * rescaled + (1 - guidance_rescale) * guided
            latents = pipe.scheduler.step(guided, t, latents, **extra).prev_sample
            if i == interrupted_after:
                break
    return torch.as_tensor(latents)


def swapped(pipe: Any, run: Callable[[], Any], critical_step: int) -> torch.Tensor:
    """The latents of a plain call of Stable Diffusion, exchanging embeddings at the UNet's door.

    Whatever else hangs on the UNet sees every call, as in :func:`sd_loop` and unlike
    :func:`spliced`.

    Args:
        pipe: A pipeline with the UNet and the text encoder of Stable Diffusion.
        run: Makes the call, with the negative prompt "wearing glasses".
        critical_step: First timestep, counted from 0, with the negative prompt.
    """
    with torch.no_grad():
        late, early = (
            pipe.encode_prompt("", "cpu", 1, True, negative_prompt=text)[1][0]
            for text in ("wearing glasses", "")
        )
    seen: list[int] = []

    def swap(_: Any, args: Any, kwargs: Any) -> Any:
        timestep = int(args[1])
        if timestep not in seen:
            seen.append(timestep)
        rows = [
            early if torch.equal(row, late) and len(seen) <= critical_step else row
            for row in kwargs["encoder_hidden_states"]
        ]
        return args, {**kwargs, "encoder_hidden_states": torch.stack(rows)}

    hook = pipe.unet.register_forward_pre_hook(swap, with_kwargs=True)
    try:
        return torch.as_tensor(run())
    finally:
        hook.remove()


DENOISERS = ("controlnet", "unet", "transformer", "transformer_2")


def spliced(
    pipe: Any, request: Callable[..., dict[str, Any]], critical_step: int, stop_step: int | None
) -> Any:
    """The same for any pipeline, from plain calls whose denoisers are made to repeat.

    A call with an empty negative prompt gives the outputs of the denoisers in the steps before
    the critical one. They are repeated to a call with the negative prompt, which makes its own
    from there on; and so back at the stop step.

    Args:
        pipe: The pipeline.
        request: Makes the arguments of a call, but for the negative prompt.
        critical_step: First step with the negative prompt.
        stop_step: First step without it again.
    """
    parts: list[tuple[Any, dict[str, Any]]] = [
        (critical_step, {"negative_prompt": ""}),
        (stop_step, {}),
    ]
    outputs: list[Any] = []
    result = None
    for until, negative in [*parts, (None, {"negative_prompt": ""})]:
        with _repeating(pipe, outputs) as (made, marks):
            result = pipe(**request(**negative))[0]
        if until is None:
            break
        outputs = made[: marks[until - 1]] if until else []
    return result


@contextlib.contextmanager
def _repeating(pipe: Any, outputs: Sequence[Any]) -> Iterator[tuple[list[Any], list[int]]]:
    """Denoisers give ``outputs`` first; all they gave, and how many when each step was made."""
    made: list[Any] = []
    marks: list[int] = []
    patched: list[tuple[Any, str]] = []

    def patch(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        vars(owner)[name] = make(getattr(owner, name))
        patched.append((owner, name))

    def repeat(forward: Any) -> Any:
        def repeating(*args: Any, **kwargs: Any) -> Any:
            made.append(
                outputs[len(made)] if len(made) < len(outputs) else forward(*args, **kwargs)
            )
            return made[-1]

        return repeating

    def mark(step: Any) -> Any:
        def marking(*args: Any, **kwargs: Any) -> Any:
            marks.append(len(made))
            return step(*args, **kwargs)

        # Pipelines look at the signature.
        marking.__wrapped__ = step  # type: ignore[attr-defined]
        return marking

    for name in DENOISERS:
        if pipe.components.get(name) is not None:
            patch(getattr(pipe, name), "forward", repeat)
    patch(pipe.scheduler, "step", mark)
    try:
        yield made, marks
    finally:
        for owner, name in patched:
            del vars(owner)[name]


def third_row(
    pipe: Any,
    request: Callable[..., dict[str, Any]],
    window: range,
    area: int,
    adaptive: bool,
) -> torch.Tensor:
    """What ``area`` and ``adaptive`` should give where a UNet guides in one batch of two halves.

    A plain call with an empty negative prompt, whose UNet and ControlNet are made to run the first
    half of each batch once more with what they got in a plain call with the negative prompt.

    Args:
        pipe: The pipeline.
        request: Makes the arguments of a call.
        window: Steps in which the negative prompt acts.
        area: See :class:`~lazyneg.core.guidance.Guidance`.
        adaptive: See there.
    """
    text: dict[str, Any] = {}
    residuals: dict[str, Any] = {}
    guidances: list[Guidance] = []
    steps: list[int] = []

    def learn(_: Any, args: Any, kwargs: Any) -> None:
        text.setdefault("encoder_hidden_states", kwargs["encoder_hidden_states"])
        text.setdefault("added_cond_kwargs", kwargs.get("added_cond_kwargs"))

    def half(value: Any, count: int) -> Any:
        if isinstance(value, torch.Tensor):
            return value[: count // 2] if value.ndim and len(value) == count else value
        if isinstance(value, dict):
            return {key: half(item, count) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [half(item, count) for item in value]
        return value

    def negative(forward: Any, args: Any, kwargs: Any) -> Any:
        late = {key: value for key, value in text.items() if key in kwargs}
        count = len(args[0])
        return forward(
            *(half(value, count) for value in args),
            **{key: half(value, count) for key, value in {**kwargs, **late, **residuals}.items()},
        )

    def controlnet(forward: Any) -> Any:
        def both(*args: Any, **kwargs: Any) -> Any:
            residuals.clear()
            down, mid = negative(forward, args, kwargs)
            residuals["down_block_additional_residuals"] = down
            residuals["mid_block_additional_residual"] = mid
            return forward(*args, **kwargs)

        return both

    def unet(forward: Any) -> Any:
        def three(*args: Any, **kwargs: Any) -> Any:
            steps.append(1)
            found = negative(forward, args, kwargs)[0]
            noise = forward(*args, **kwargs)[0]
            if len(steps) - 1 in window:
                guidances.extend(
                    Guidance(area, adaptive) for _ in range(len(found) - len(guidances))
                )
                empty, cond = noise.chunk(2)
                rows = zip(guidances, cond, empty, found, strict=True)
                chosen = torch.stack([one.uncond(p, e, n, 0) for one, p, e, n in rows])
                noise = torch.cat([chosen, cond])
            return UNet2DConditionOutput(noise) if kwargs.get("return_dict", True) else (noise,)

        return three

    hook = pipe.unet.register_forward_pre_hook(learn, with_kwargs=True)
    pipe(**request())
    hook.remove()
    with contextlib.ExitStack() as patches:
        for name, patch in (("controlnet", controlnet), ("unet", unet)):
            if part := pipe.components.get(name):
                part.forward = patch(part.forward)
                patches.callback(vars(part).pop, "forward")
        return torch.as_tensor(pipe(**request(negative_prompt=""))[0])
