"""Embeddings in place of texts, for the early steps too."""

from __future__ import annotations

from types import MethodType
from typing import Any

import pytest
import torch

import lazyneg
from lazyneg.core.settings import SettingsError
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import sd_loop, spliced
from tests.diffusers.tiny import pipeline, request


def _sd(pipe: Any, text: str) -> dict[str, Any]:
    return {"prompt_embeds": pipe.encode_prompt(text, "cpu", 1, False)[0]}


def _two(pipe: Any, text: str) -> dict[str, Any]:
    embeds, _, pooled, _ = pipe.encode_prompt(text, do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _sd3(pipe: Any, text: str) -> dict[str, Any]:
    embeds, _, pooled, _ = pipe.encode_prompt(
        text, text, text, do_classifier_free_guidance=False, max_sequence_length=32
    )
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _flux(pipe: Any, text: str) -> dict[str, Any]:
    embeds, pooled, _ = pipe.encode_prompt(text, text, max_sequence_length=32)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _pixart(pipe: Any, text: str) -> dict[str, Any]:
    embeds, mask, _, _ = pipe.encode_prompt(text, False, max_sequence_length=32)
    return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


def _qwen(pipe: Any, text: str) -> dict[str, Any]:
    embeds, mask = pipe.encode_prompt(text)
    return {"prompt_embeds": embeds, "prompt_embeds_mask": mask}


def _wan(pipe: Any, text: str) -> dict[str, Any]:
    return {"prompt_embeds": pipe.encode_prompt(text, None, False, max_sequence_length=32)[0]}


ENCODE = {
    "sd": _sd,
    "sd img2img": _sd,
    "sd inpaint": _sd,
    "sd controlnet": _sd,
    "sdxl": _two,
    "sdxl img2img": _two,
    "sd3": _sd3,
    "flux": _flux,
    "pixart": _pixart,
    "qwen": _qwen,
    "wan": _wan,
}


def encoded(family: str, pipe: Any, text: str, prefix: str) -> dict[str, Any]:
    with torch.no_grad():
        return {prefix + name: value for name, value in ENCODE[family](pipe, text).items()}


@pytest.mark.parametrize("family", ENCODE)
def test_freed_text_encoders(family: str) -> None:
    pipe = pipeline(family)
    by_text = [
        spliced(pipe, lambda **more: request(family, **more), 2, None),
        spliced(pipe, lambda **more: request(family, **more), 1, 3),
        pipe(**request(family, negative_prompt=""))[0],
    ]
    embeds: dict[str, Any] = {
        "prompt": None,
        "negative_prompt": None,
        **encoded(family, pipe, "girl eating pizza", ""),
        **encoded(family, pipe, "wearing glasses", "negative_"),
    }
    early = encoded(family, pipe, "", "early_")
    for name in list(pipe.components):
        if name.startswith(("text_encoder", "tokenizer")):
            setattr(pipe, name, None)
    for critical_step, stop_step, expected in zip((2, 1, 5), (None, 3, None), by_text):
        lazyneg.apply(pipe, critical_step, stop_step=stop_step, **early)
        assert torch.equal(pipe(**request(family, **embeds))[0], expected)
    lazyneg.apply(pipe, 2)
    names = ", ".join(name for name, value in early.items() if value is not None)
    with pytest.raises(DelayError, match=f"allowed: its embeddings as {names}"):
        pipe(**request(family, **embeds))


def test_early_embeddings_for_one_call_and_for_some() -> None:
    pipe = pipeline("sd")
    expected = sd_loop(pipe, 2, early_prompt="lowres", **request("sd"))
    early = encoded("sd", pipe, "lowres", "early_")
    pipe.forward_lazy_negative = MethodType(lazyneg.forward_lazy_negative, pipe)
    made = pipe.forward_lazy_negative(**request("sd"), critical_step=2, **early)[0]
    assert torch.equal(made, expected)
    with lazyneg.lazy_negative(pipe, 2, **early):
        assert torch.equal(pipe(**request("sd"))[0], expected)
    assert torch.equal(pipe(**request("sd"))[0], sd_loop(pipe, 0, **request("sd")))


def test_early_embeddings_beside_no_negative_prompt() -> None:
    pipe = pipeline("sd")
    lazyneg.apply(pipe, 2, **encoded("sd", pipe, "lowres", "early_"))
    expected = sd_loop(pipe, 2, early_prompt="lowres", **request("sd", negative_prompt=""))
    assert torch.equal(pipe(**request("sd", negative_prompt=None))[0], expected)


def long(pipe: Any, text: str) -> torch.Tensor:
    """Embeddings of more tokens than the text encoder takes, as compel makes them: in chunks."""
    with torch.no_grad():
        return torch.cat([pipe.encode_prompt(text, "cpu", 1, False)[0]] * 2, dim=1)


def test_long_prompts() -> None:
    pipe = pipeline("sd")
    embeds: dict[str, Any] = {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": long(pipe, "girl eating pizza"),
        "negative_prompt_embeds": long(pipe, "wearing glasses"),
    }
    empty = long(pipe, "")

    def arguments(**more: Any) -> dict[str, Any]:
        given = request("sd", **embeds)
        if more:
            given["negative_prompt_embeds"] = empty
        return given

    expected = spliced(pipe, arguments, 2, None)
    assert not torch.equal(pipe(**arguments())[0], expected)
    lazyneg.apply(pipe, 2)
    with pytest.raises(DelayError, match="allowed: its embeddings as early_prompt_embeds"):
        pipe(**arguments())
    lazyneg.apply(pipe, 2, early_prompt_embeds=empty)
    assert torch.equal(pipe(**arguments())[0], expected)


def test_early_embeddings_that_do_not_fit_are_named() -> None:
    pipe = pipeline("sd")
    lazyneg.apply(pipe, 2, early_prompt_embeds=long(pipe, ""))
    with pytest.raises(DelayError, match="early_prompt_embeds do not fit this call"):
        pipe(**request("sd", prompt=None, prompt_embeds=torch.zeros(1, 77, 32)))
    pipe = lazyneg.apply(pipeline("sdxl"), 2, early_prompt_embeds=torch.zeros(1, 77, 64))
    with pytest.raises(DelayError, match="negative_pooled_prompt_embeds"):
        pipe(**request("sdxl"))


def test_an_error_that_is_the_calls_own_is_told_as_such() -> None:
    pipe = pipeline("sd")
    lazyneg.apply(pipe, 2, **encoded("sd", pipe, "", "early_"))
    with pytest.raises(ValueError, match="divisible by 8"):
        pipe(**request("sd", height=17))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"early_embeds": 1}, TypeError, "takes no early_embeds; allowed: early_prompt_embeds"),
        ({"early_pooled_prompt_embeds": torch.zeros(1)}, TypeError, "takes no early_pooled"),
        ({"early_prompt_embeds": "x"}, TypeError, "has str; allowed: a tensor, or a list of them"),
        (
            {"early_prompt_embeds": torch.zeros(1), "early_prompt": "x"},
            SettingsError,
            "early_prompt is 'x' beside early_prompt_embeds",
        ),
    ],
)
def test_bad_early_embeddings(values: dict[str, Any], kind: Any, message: str) -> None:
    pipe = pipeline("sd")
    before = type(pipe)
    with pytest.raises(kind, match=message):
        lazyneg.apply(pipe, 2, **values)
    assert type(pipe) is before
    assert "_lazyneg" not in vars(pipe)
