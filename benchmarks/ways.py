"""Ways to delay a negative prompt in diffusers, on a pipeline whose denoiser does nothing."""

from __future__ import annotations

import inspect
import itertools
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

import lazyneg
from benchmarks.measuring import Call
from tests.diffusers.tiny import pipeline, request

STEPS = 200


class EmptyUNet(UNet2DConditionModel):
    """Gives zeros, so that what is left is what goes on around the denoiser."""

    zeros = torch.zeros(2, 4, 8, 8)

    def forward(self, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        return (self.zeros,)


def empty_pipeline() -> Any:
    pipe = pipeline("sd")
    pipe.unet.__class__ = EmptyUNet
    return pipe


def arguments() -> dict[str, Any]:
    return request("sd", num_inference_steps=STEPS)


def plain(pipe: Any) -> Call:
    return lambda: pipe(**arguments())


def delayed(critical_step: int) -> Callable[[Any], Call]:
    def way(pipe: Any) -> Call:
        lazyneg.apply(pipe, critical_step)
        return lambda: pipe(**arguments())

    return way


def delayed_anew(critical_step: int) -> Callable[[Any], Call]:
    """With another prompt in each call, so that nothing is remembered."""

    def way(pipe: Any) -> Call:
        lazyneg.apply(pipe, critical_step)
        numbers = itertools.count()
        return lambda: pipe(**{**arguments(), "prompt": f"girl eating {next(numbers)} pizzas"})

    return way


def article(critical_step: int) -> Callable[[Any], Call]:
    """The pipeline's own call, with the text encoded twice and an ``if`` in its loop."""
    source = textwrap.dedent(inspect.getsource(StableDiffusionPipeline.__call__))
    for before, after in (
        (
            "    # 4. Prepare timesteps\n",
            "    text, late = self.encode_prompt(\n"
            "        prompt, device, num_images_per_prompt, True, late_negative_prompt\n"
            "    )\n"
            "    late_embeds = torch.cat([late, text])\n",
        ),
        (
            "            # predict the noise residual\n",
            f"            if i == {critical_step}:\n                prompt_embeds = late_embeds\n",
        ),
        ("    callback_on_step_end:", "    late_negative_prompt=None,\n"),
    ):
        if source.count(before) != 1:
            raise RuntimeError(f"this diffusers has no single {before.strip()!r} in its loop")
        source = source.replace(before, after + before)
    module = vars(sys.modules[StableDiffusionPipeline.__module__])
    found: dict[str, Any] = {}
    exec(
        f"from __future__ import annotations\n{source}", {**module, "EXAMPLE_DOC_STRING": ""}, found
    )
    call = found["__call__"]

    def way(pipe: Any) -> Call:
        def called() -> Any:
            given = arguments()
            late = given.pop("negative_prompt")
            return call(pipe, **given, negative_prompt="", late_negative_prompt=late)

        return called

    return way


def callback(critical_step: int) -> Callable[[Any], Call]:
    """``callback_on_step_end`` that exchanges the embeddings, for which they are encoded before."""

    def way(pipe: Any) -> Call:
        def called() -> Any:
            given = arguments()
            with torch.no_grad():
                text, negative = pipe.encode_prompt(
                    given["prompt"], "cpu", 1, True, given["negative_prompt"]
                )
            late = torch.cat([negative, text])

            def swap(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                if step == critical_step - 1:
                    tensors["prompt_embeds"] = late
                return tensors

            return pipe(
                **{**given, "negative_prompt": ""},
                callback_on_step_end=swap,
                callback_on_step_end_tensor_inputs=["prompt_embeds"],
            )

        return called

    return way


WAYS = {
    "delayed to 0": delayed(0),
    "delayed to 1": delayed(1),
    "delayed to 5": delayed(5),
    "delayed to 5, new texts": delayed_anew(5),
    "delayed to 100": delayed(100),
    "never applied": delayed(STEPS),
    "article's method, 5": article(5),
    "step callback, 5": callback(5),
}
