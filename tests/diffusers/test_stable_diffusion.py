"""Stable Diffusion against its own loop with one line more, whatever the call asks for."""

from __future__ import annotations

import inspect
import logging
from types import MethodType
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    LCMScheduler,
    SASolverScheduler,
    StableDiffusionPipeline,
    TCDScheduler,
)
from diffusers.callbacks import SDCFGCutoffCallback
from peft import LoraConfig

import lazyneg
from lazyneg.core.settings import SettingsError
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import sd_loop
from tests.diffusers.tiny import add_ip_adapter, pipeline, request

# In an order that is the same in each process of the tests.
SCHEDULERS = [
    *sorted(DDIMScheduler().compatibles, key=lambda kind: kind.__name__),
    *(LCMScheduler, TCDScheduler, SASolverScheduler),
]


@pytest.fixture
def pipe() -> Any:
    return pipeline("sd")


def call(pipe: Any, **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request("sd", **more))[0])


def loop(pipe: Any, critical_step: int, **more: Any) -> torch.Tensor:
    arguments = request("sd", **more)
    return sd_loop(pipe, critical_step, **arguments)


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("critical_step", [0, 1, 3, 20])
def test_every_scheduler(kind: Any, critical_step: int) -> None:
    pipe = pipeline("sd")
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    lazyneg.apply(pipe, critical_step)
    torch.manual_seed(5)
    made = call(pipe)
    torch.manual_seed(5)
    assert torch.equal(made, loop(pipe, critical_step))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"prompt": ["girl", "a cat"], "negative_prompt": ["ugly", "glasses"]}, id="lists"
        ),
        pytest.param({"num_images_per_prompt": 2}, id="images per prompt"),
        pytest.param({"guidance_rescale": 0.7}, id="guidance rescale"),
        pytest.param({"eta": 1.0}, id="eta"),
        pytest.param({"negative_prompt": "girl eating pizza"}, id="negative like the prompt"),
        pytest.param({"prompt": "", "negative_prompt": "ugly"}, id="empty prompt"),
        pytest.param({"negative_prompt": "ugly, " * 60}, id="longer than the tokenizer takes"),
    ],
)
def test_options(pipe: Any, options: dict[str, Any]) -> None:
    lazyneg.apply(pipe, 2)
    assert torch.equal(call(pipe, **options), loop(pipe, 2, **options))
    assert not torch.equal(call(pipe, **options), loop(pipe, 0, **options))


def test_clip_skip(pipe: Any) -> None:
    # Where diffusers looks for the norm, and transformers 5 no longer has it.
    vars(pipe.text_encoder).setdefault("text_model", pipe.text_encoder)
    lazyneg.apply(pipe, 2)
    assert torch.equal(call(pipe, clip_skip=1), loop(pipe, 2, clip_skip=1))
    assert not torch.equal(call(pipe, clip_skip=1), call(pipe))


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


def test_generator_list(pipe: Any) -> None:
    options = {"num_images_per_prompt": 2, "eta": 0.5}
    lazyneg.apply(pipe, 2)
    made = call(pipe, generator=generators(), **options)
    assert torch.equal(made, loop(pipe, 2, generator=generators(), **options))


def test_global_generator(pipe: Any) -> None:
    lazyneg.apply(pipe, 2)
    torch.manual_seed(9)
    made = call(pipe, generator=None, eta=0.5)
    after = torch.get_rng_state()
    torch.manual_seed(9)
    assert torch.equal(made, loop(pipe, 2, generator=None, eta=0.5))
    assert torch.equal(torch.get_rng_state(), after)


def encoded(pipe: Any, text: str, count: int = 1) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(pipe.encode_prompt([text] * count, "cpu", 1, False)[0])


@pytest.mark.parametrize("count", [1, 2])
def test_embeds_without_text(pipe: Any, count: int) -> None:
    embeds = {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": encoded(pipe, "girl", count),
        "negative_prompt_embeds": encoded(pipe, "ugly", count),
    }
    lazyneg.apply(pipe, 2)
    assert torch.equal(call(pipe, **embeds), loop(pipe, 2, **embeds))


def test_negative_embeds_with_a_text_prompt(pipe: Any) -> None:
    embeds = {"negative_prompt": None, "negative_prompt_embeds": encoded(pipe, "ugly")}
    lazyneg.apply(pipe, 2)
    assert torch.equal(call(pipe, **embeds), loop(pipe, 2, **embeds))


def test_embeds_without_a_text_encoder_say_what_is_missing(pipe: Any) -> None:
    embeds = {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": encoded(pipe, "girl"),
        "negative_prompt_embeds": encoded(pipe, "ugly"),
    }
    pipe.text_encoder = pipe.tokenizer = None
    lazyneg.apply(pipe, 2)
    with pytest.raises(DelayError, match="encode an empty prompt"):
        call(pipe, **embeds)


def test_lora_scale(pipe: Any) -> None:
    for part, targets in ((pipe.unet, ["to_q", "to_v"]), (pipe.text_encoder, ["q_proj"])):
        part.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    options = {"cross_attention_kwargs": {"scale": 0.5}}
    lazyneg.apply(pipe, 2)
    made = call(pipe, **options)
    assert torch.equal(made, loop(pipe, 2, **options))
    assert not torch.equal(made, call(pipe))


def test_ip_adapter(pipe: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    add_ip_adapter(pipe, generator)
    options = {"ip_adapter_image_embeds": [torch.randn(2, 1, 16, generator=generator)]}
    lazyneg.apply(pipe, 2)
    made = call(pipe, **options)
    assert torch.equal(made, loop(pipe, 2, **options))


def test_stop_step_and_early_prompt(pipe: Any) -> None:
    lazyneg.apply(pipe, 1, stop_step=3, early_prompt="lowres")
    made = call(pipe)
    assert torch.equal(made, loop(pipe, 1, stop_step=3, early_prompt="lowres"))
    assert not torch.equal(made, loop(pipe, 1, stop_step=3))


def test_stop_step_alone(pipe: Any) -> None:
    lazyneg.apply(pipe, 0, stop_step=3)
    assert torch.equal(call(pipe), loop(pipe, 0, stop_step=3))


def test_early_prompt_without_a_negative_prompt(pipe: Any) -> None:
    lazyneg.apply(pipe, 2, early_prompt="lowres")
    made = call(pipe, negative_prompt=None)
    assert torch.equal(made, loop(pipe, 2, negative_prompt="", early_prompt="lowres"))


@pytest.mark.parametrize(("percent", "step"), [(0, 0), (19, 0), (20, 1), (60, 3), (100, 5)])
def test_percent(pipe: Any, percent: int, step: int) -> None:
    lazyneg.apply(pipe, percent, unit="percent")
    assert torch.equal(call(pipe), loop(pipe, step))


def test_percent_of_the_iterations_of_a_second_order_scheduler(pipe: Any) -> None:
    from diffusers import HeunDiscreteScheduler

    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    lazyneg.apply(pipe, 50, unit="percent")
    # 5 steps are 9 iterations.
    assert torch.equal(call(pipe), loop(pipe, 4))


def test_percent_of_the_steps_that_img2img_really_runs() -> None:
    from tests.diffusers.reference import spliced

    pipe = pipeline("sd img2img")
    half = spliced(pipe, lambda **more: request("sd img2img", **more), 2, None)
    lazyneg.apply(pipe, 50, unit="percent")
    # Strength 0.8 runs 4 of 5 steps.
    assert torch.equal(pipe(**request("sd img2img"))[0], half)


def test_method_of_the_article(pipe: Any) -> None:
    plain = call(pipe)
    pipe.forward_lazy_negative = MethodType(lazyneg.forward_lazy_negative, pipe)
    made = pipe.forward_lazy_negative(**request("sd"), critical_step=2)[0]
    assert torch.equal(made, loop(pipe, 2))
    assert torch.equal(pipe.forward_lazy_negative(**request("sd"))[0], plain)
    assert torch.equal(call(pipe), plain)


def test_method_of_the_article_overrules_what_was_applied(pipe: Any) -> None:
    lazyneg.apply(pipe, 4)
    made = lazyneg.forward_lazy_negative(pipe, **request("sd"), critical_step=2)[0]
    assert torch.equal(made, loop(pipe, 2))
    assert torch.equal(call(pipe), loop(pipe, 4))


def test_positional_arguments(pipe: Any) -> None:
    lazyneg.apply(pipe, 2)
    arguments = request("sd")
    prompt, steps = arguments.pop("prompt"), arguments.pop("num_inference_steps")
    height, width = arguments.pop("height"), arguments.pop("width")
    made = pipe(prompt, height, width, steps, **arguments)[0]
    assert torch.equal(made, loop(pipe, 2))


def test_context_manager_restores(pipe: Any) -> None:
    plain = call(pipe)
    with lazyneg.lazy_negative(pipe, 2) as same:
        assert same is pipe
        assert torch.equal(call(pipe), loop(pipe, 2))
        with lazyneg.lazy_negative(pipe, 3):
            assert torch.equal(call(pipe), loop(pipe, 3))
        assert torch.equal(call(pipe), loop(pipe, 2))
    assert type(pipe) is StableDiffusionPipeline
    assert torch.equal(call(pipe), plain)


def test_context_manager_restores_after_an_exception(pipe: Any) -> None:
    with pytest.raises(ZeroDivisionError), lazyneg.lazy_negative(pipe, 2):
        raise ZeroDivisionError
    assert type(pipe) is StableDiffusionPipeline
    assert "_lazyneg" not in vars(pipe)


def test_applying_again_only_changes_the_settings(pipe: Any) -> None:
    before = dict(vars(pipe))
    for critical_step in (1, 4, 2):
        assert lazyneg.apply(pipe, critical_step) is pipe
    assert torch.equal(call(pipe), loop(pipe, 2))
    assert lazyneg.remove(pipe) is pipe
    assert type(pipe) is StableDiffusionPipeline
    assert lazyneg.remove(pipe) is pipe
    call(pipe)
    assert vars(pipe).keys() - before.keys() == plain_call_attributes()


def plain_call_attributes() -> set[str]:
    pipe = pipeline("sd")
    before = set(vars(pipe))
    call(pipe)
    return set(vars(pipe)) - before


def test_another_pipeline_with_the_same_models_is_not_affected(pipe: Any) -> None:
    other = StableDiffusionPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    plain = call(other)
    lazyneg.apply(pipe, 2)
    call(pipe)
    assert torch.equal(call(other), plain)


def test_looks_like_the_plain_pipeline(pipe: Any, tmp_path: Any) -> None:
    from diffusers import AutoPipelineForImage2Image, StableDiffusionImg2ImgPipeline

    signature = inspect.signature(pipe.__call__)
    lazyneg.apply(pipe, 2)
    assert isinstance(pipe, StableDiffusionPipeline)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert inspect.signature(pipe.__call__) == signature
    assert type(StableDiffusionImg2ImgPipeline.from_pipe(pipe)) is StableDiffusionImg2ImgPipeline
    assert type(AutoPipelineForImage2Image.from_pipe(pipe)) is StableDiffusionImg2ImgPipeline
    made = call(pipe)
    pipe.save_pretrained(tmp_path)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded(**request("sd"))[0], call(lazyneg.remove(pipe)))
    assert torch.equal(made, loop(pipe, 2))


def test_users_callback_runs_once_a_step(pipe: Any) -> None:
    seen = []

    def callback(_: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, int(timestep), tensors["latents"].clone()))
        return {"latents": tensors["latents"] * 1.01}

    plain = call(pipe, callback_on_step_end=callback, negative_prompt="")
    expected, seen = seen, []
    lazyneg.apply(pipe, 5)
    assert torch.equal(call(pipe, callback_on_step_end=callback), plain)
    assert [entry[:2] for entry in seen] == [entry[:2] for entry in expected]
    assert all(torch.equal(one[2], other[2]) for one, other in zip(seen, expected))


@pytest.mark.parametrize("critical_step", [1, 4])
def test_callback_that_ends_guidance(pipe: Any, critical_step: int) -> None:
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=2)
    batches: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    lazyneg.apply(pipe, critical_step)
    made = call(pipe, callback_on_step_end=cutoff)
    hook.remove()
    assert batches == [2, 2, 2, 1, 1]
    plain = call(lazyneg.remove(pipe), callback_on_step_end=cutoff)
    empty = call(pipe, callback_on_step_end=cutoff, negative_prompt="")
    assert not torch.equal(made, plain)
    assert torch.equal(made, empty) is (critical_step == 4)


def test_callback_that_changes_the_text_is_an_error(pipe: Any) -> None:
    def callback(*arguments: Any) -> dict[str, Any]:
        tensors = arguments[-1]
        return {"prompt_embeds": tensors["prompt_embeds"] * 1.1}

    lazyneg.apply(pipe, 3)
    with pytest.raises(DelayError, match="step 1"):
        call(
            pipe,
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )


def test_interrupt(pipe: Any) -> None:
    def callback(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 2
        return tensors

    plain = call(pipe, callback_on_step_end=callback, negative_prompt="")
    lazyneg.apply(pipe, 4)
    assert torch.equal(call(pipe, callback_on_step_end=callback), plain)
    assert torch.equal(call(pipe), loop(pipe, 4))


@pytest.mark.parametrize("negative_prompt", [None, ""])
def test_no_negative_prompt_costs_nothing_and_is_said_once(
    pipe: Any, caplog: Any, negative_prompt: str | None
) -> None:
    calls = []
    for part in (pipe.text_encoder, pipe.unet):
        part.register_forward_hook(lambda *_: calls.append(1))
    plain = call(pipe, negative_prompt=negative_prompt)
    count = len(calls)
    lazyneg.apply(pipe, 2)
    with caplog.at_level(logging.INFO, logger="lazyneg"):
        assert torch.equal(call(pipe, negative_prompt=negative_prompt), plain)
        assert len(calls) == 2 * count
        call(pipe, negative_prompt=negative_prompt)
    said = [record for record in caplog.records if record.name == "lazyneg"]
    assert [record.levelno for record in said] == [logging.INFO]
    assert "no negative prompt" in said[0].message


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("sd", {"guidance_scale": 1.0}),
        ("sdxl", {"guidance_scale": 1.0}),
        ("pixart", {"guidance_scale": 1.0}),
        ("flux", {"true_cfg_scale": 1.0}),
    ],
)
def test_guidance_that_is_off_is_said_once(
    caplog: Any, family: str, options: dict[str, float]
) -> None:
    pipe = pipeline(family)
    plain = pipe(**request(family, **options))[0]
    lazyneg.apply(pipe, 2)
    with caplog.at_level(logging.INFO, logger="lazyneg"):
        for _ in range(2):
            assert torch.equal(pipe(**request(family, **options))[0], plain)
    said = [record for record in caplog.records if record.name == "lazyneg"]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert "makes no difference to the denoiser" in said[0].message


def test_model_offload_hooks(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")
    lazyneg.apply(pipe, 2)
    made = call(pipe)
    assert pipe.unet._hf_hook is not None
    assert torch.equal(made, call(pipe))
    pipe.remove_all_hooks()
    assert torch.equal(made, loop(pipe, 2))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_compiled_denoiser(pipe: Any, in_place: bool) -> None:
    torch._dynamo.reset()
    expected = loop(pipe, 2)
    options: dict[str, Any] = {"backend": "eager", "fullgraph": True}
    if in_place:
        pipe.unet.compile(**options)
    else:
        pipe.unet = torch.compile(pipe.unet, **options)
    call(pipe)
    before = dict(torch._dynamo.utils.counters["stats"])
    with torch._dynamo.config.patch(error_on_recompile=True):
        made = call(lazyneg.apply(pipe, 2))
        call(lazyneg.remove(pipe))
    assert dict(torch._dynamo.utils.counters["stats"]) == before
    assert torch.equal(made, expected)
    assert isinstance(vars(pipe.unet).get("_compiled_call_impl"), type(None)) is not in_place


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"critical_step": -1}, "critical_step is -1"),
        ({"critical_step": 2.5}, "2.5"),
        ({"unit": "seconds"}, "'seconds'; allowed: steps or percent"),
        ({"critical_step": 101, "unit": "percent"}, "101 percent"),
        ({"critical_step": 5, "stop_step": 5}, "stop_step is 5"),
    ],
)
def test_bad_values_leave_the_pipeline_as_it_is(
    pipe: Any, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        lazyneg.apply(pipe, **values)
    assert type(pipe) is StableDiffusionPipeline


def test_only_pipelines_with_a_negative_prompt(pipe: Any) -> None:
    from diffusers import DDPMPipeline

    with pytest.raises(TypeError, match="takes no negative prompt"):
        lazyneg.apply(DDPMPipeline(pipe.unet, pipe.scheduler))
    with pytest.raises(TypeError, match="got UNet2DConditionModel; allowed: a pipeline"):
        lazyneg.apply(pipe.unet)


def test_errors_of_the_pipeline_come_through(pipe: Any) -> None:
    lazyneg.apply(pipe, 2)
    with pytest.raises(ValueError, match="divisible by 8"):
        call(pipe, height=17)
    with pytest.raises(TypeError, match="same type to `prompt`"):
        call(pipe, prompt=["girl"], negative_prompt="ugly")
