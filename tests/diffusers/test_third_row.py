"""Where, and while, the negative prompt acts: a third row, chosen from for each picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PyramidAttentionBroadcastConfig,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionSAGPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.callbacks import SDCFGCutoffCallback
from diffusers.models.attention_processor import AttnProcessor2_0

import lazyneg
from lazyneg.core.guidance import Guidance
from lazyneg.core.settings import SettingsError
from lazyneg.diffusers.errors import DelayError
from tests.diffusers.reference import sd_loop, third_row
from tests.diffusers.tiny import (
    FAMILIES,
    OwnLoop,
    _stable_diffusion,
    _t5,
    _t5_tokenizer,
    add_ip_adapter,
    pipeline,
    request,
    unet,
    vae,
)

UNETS = [
    family for family in FAMILIES if family.startswith("sd") and family not in ("sd3", "sd pag")
]

UNSEEN = {
    "sd": ("a", "cat"),
    "sd img2img": ("a", "cat"),
    "sd inpaint": ("a", "cat"),
    "sd controlnet": ("a", "low quality, ugly"),
    "sd3": ("zzzz", "low quality, ugly"),
    "flux": ("a", "cat"),
}
"""Prompts that push little beside these negative prompts, and elsewhere."""

REFUSED = {
    ("flux", "area"): "several dimensions can be its channels",
    ("qwen", "area"): "several dimensions can be its channels",
    ("sd pag", "adaptive"): "none of those so far",
}
"""Of the families at this size, what cannot be known."""


@pytest.fixture
def pipe() -> Any:
    return pipeline("sd")


def latents(pipe: Any, family: str = "sd", **more: Any) -> torch.Tensor:
    return torch.as_tensor(pipe(**request(family, **more))[0])


def loop(pipe: Any, critical_step: int, **more: Any) -> torch.Tensor:
    return sd_loop(pipe, critical_step, **request("sd", **more))


def rows_of(pipe: Any) -> list[int]:
    """The rows that denoisers get from now on, call by call."""
    rows: list[int] = []

    def count(_: Any, args: Any, kwargs: Any) -> None:
        rows.append(len(args[0] if args else kwargs["hidden_states"]))

    for name in ("controlnet", "unet", "transformer", "transformer_2"):
        if part := pipe.components.get(name):
            part.register_forward_pre_hook(count, with_kwargs=True)
    return rows


WAYS = [
    pytest.param({"area": 20}, id="area"),
    pytest.param({"adaptive": True}, id="adaptive"),
    pytest.param({"area": 40, "adaptive": True}, id="both"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("critical_step", "stop_step"), [(0, None), (2, None), (1, 4)])
@pytest.mark.parametrize("prompts", [("girl eating pizza", "wearing glasses"), ("girl", "glasses")])
def test_loop(
    pipe: Any, way: dict[str, Any], critical_step: int, stop_step: int | None, prompts: Any
) -> None:
    more = {"prompt": prompts[0], "negative_prompt": prompts[1], "num_inference_steps": 8}
    expected = loop(pipe, critical_step, stop_step=stop_step, **way, **more)
    lazyneg.apply(pipe, critical_step, stop_step=stop_step, **way)
    made = latents(pipe, **more)
    assert torch.equal(made, expected)
    assert not torch.equal(made, latents(lazyneg.remove(pipe), negative_prompt=""))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_images_per_prompt": 3}, id="images per prompt"),
        pytest.param(
            {"prompt": ["girl", "a cat"], "negative_prompt": ["ugly", "glasses"]}, id="lists"
        ),
        pytest.param({"guidance_rescale": 0.7}, id="guidance rescale"),
        pytest.param({"eta": 1.0}, id="eta"),
        pytest.param({"prompt": "", "negative_prompt": "ugly"}, id="empty prompt"),
        pytest.param({"early_prompt": "lowres"}, id="early prompt"),
    ],
)
@pytest.mark.parametrize("kind", [None, HeunDiscreteScheduler])
def test_options(pipe: Any, options: dict[str, Any], kind: Any) -> None:
    if kind:
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    way: dict[str, Any] = {"area": 30, "adaptive": True}
    call = dict(options)
    way["early_prompt"] = call.pop("early_prompt", "")
    lazyneg.apply(pipe, 1, **way)
    assert torch.equal(latents(pipe, **call), loop(pipe, 1, **way, **call))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", UNETS)
def test_unets(family: str, way: dict[str, Any]) -> None:
    pipe = pipeline(family)
    area, adaptive = way.get("area", 100), way.get("adaptive", False)
    expected = third_row(pipe, lambda **more: request(family, **more), range(1, 4), area, adaptive)
    lazyneg.apply(pipe, 1, stop_step=4, **way)
    assert torch.equal(latents(pipe, family), expected)
    lazyneg.apply(pipe, 1, stop_step=4)
    assert not torch.equal(latents(pipe, family), expected) or area == 100


@pytest.mark.parametrize(
    ("family", "area"),
    [(family, area) for family in UNSEEN for area in (10, 100) if (family, area) != ("flux", 10)],
)
def test_what_does_not_show_is_left_alone(family: str, area: int) -> None:
    pipe = pipeline(family)
    prompt, negative = UNSEEN[family]
    call = {"prompt": prompt, "negative_prompt": negative}
    empty = latents(pipe, family, prompt=prompt, negative_prompt="")
    assert not torch.equal(latents(pipe, family, **call), empty)
    for critical_step in (0, 2):
        lazyneg.apply(pipe, critical_step, area=area, adaptive=True)
        assert torch.equal(latents(pipe, family, **call), empty)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", ["area", "adaptive"])
def test_every_family(family: str, way: str) -> None:
    pipe = pipeline(family)
    rows = rows_of(pipe)
    plain = latents(pipe, family)
    once, steps = sum(rows), 4 if "img2img" in family else 5
    empty = latents(pipe, family, negative_prompt="")
    lazyneg.apply(pipe, 1, **({"area": 20} if way == "area" else {"adaptive": True}))
    if reason := REFUSED.get((family, way)):
        with pytest.raises(DelayError, match=reason):
            latents(pipe, family)
        lazyneg.remove(pipe)
        assert torch.equal(latents(pipe, family), plain)
        return
    rows.clear()
    made = latents(pipe, family)
    # A row for each picture and step in which it is asked; perturbed rows need their batch.
    more = once if family == "sd pag" else once // 2
    assert sum(rows) == once + more * (steps - 1) // steps
    assert not torch.equal(made, plain)
    assert not torch.equal(made, empty)
    assert torch.equal(latents(pipe, family), made)
    # Nothing is kept, and where there is no choice nothing is run.
    rows.clear()
    lazyneg.apply(pipe, 1)
    delayed = latents(pipe, family)
    lazyneg.apply(pipe, 1, area=100, adaptive=False)
    assert torch.equal(latents(pipe, family), delayed)
    assert sum(rows) == 2 * once
    lazyneg.remove(pipe)
    assert torch.equal(latents(pipe, family), plain)


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if (family, "adaptive") not in REFUSED]
)
def test_what_always_shows_is_always_on_but_for_rounding(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Always: also where the push of the prompt does not go where that of the negative one does.
    monkeypatch.setattr("lazyneg.core.guidance.contained", lambda *_: 1.0)
    pipe = pipeline(family)
    plain = latents(pipe, family)
    empty = latents(pipe, family, negative_prompt="")
    lazyneg.apply(pipe, 0, adaptive=True)
    made = latents(pipe, family)
    # Rounding goes by the latents, in which sound of this size changes little.
    assert (made - plain).norm() < 1e-4 * (empty - plain).norm() + 1e-6 * plain.norm()


def test_a_batch_is_its_pictures(pipe: Any) -> None:
    seeds, texts = (3, 4, 5), ["girl eating pizza", "cat", "a cat"]
    negatives = ["wearing glasses", "a", "ugly"]
    lazyneg.apply(pipe, 0, area=30, adaptive=True)

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    batch = latents(pipe, prompt=texts, negative_prompt=negatives, generator=generators(*seeds))
    for seed, text, negative, made in zip(seeds, texts, negatives, batch, strict=True):
        single = latents(
            pipe, prompt=[text], negative_prompt=[negative], generator=generators(seed)
        )
        assert (single[0] - made).norm() < 1e-5 * made.norm()


def test_a_batch_in_which_some_have_no_negative_prompt(pipe: Any) -> None:
    texts, negatives = ["girl eating pizza", "a cat", "a cat"], ["ugly", "", "glasses"]

    def call(number: slice) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
        return latents(
            pipe,
            prompt=texts[number],
            negative_prompt=negatives[number],
            generator=generators[number],
        )

    rows = rows_of(pipe)
    lazyneg.apply(pipe, 0, area=30, adaptive=True)
    batch = call(slice(None))
    assert rows == [6, 2] * 5
    for number, made in enumerate(batch):
        single = call(slice(number, number + 1))[0]
        assert (single - made).norm() < 1e-5 * made.norm()


@pytest.mark.parametrize("critical_step", [0, 2, 5])
def test_rows(pipe: Any, critical_step: int) -> None:
    rows = rows_of(pipe)
    lazyneg.apply(pipe, critical_step, stop_step=critical_step + 2, area=50)
    latents(pipe, num_images_per_prompt=2)
    window = range(critical_step, critical_step + 2)
    assert rows == [row for step in range(5) for row in ([4, 2] if step in window else [4])]


def test_a_callback_that_ends_guidance(pipe: Any) -> None:
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=2)
    rows = rows_of(pipe)
    lazyneg.apply(pipe, 0, area=50)
    latents(pipe, callback_on_step_end=cutoff)
    assert rows == [2, 1, 2, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("family", ["sd", "sd controlnet", "flux"])
def test_what_is_over_costs_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each picture by itself: the first one here is over after two steps."""
    uncond = Guidance.uncond
    guidances: dict[int, list[Guidance]] = {}

    def counting(self: Guidance, *outputs: Any) -> torch.Tensor:
        calls = guidances.setdefault(id(self), [])
        calls.append(self)
        chosen = uncond(self, *outputs)
        self.over = len(calls) == 2 + 2 * ([*guidances].index(id(self)) % 2)
        return chosen

    monkeypatch.setattr(Guidance, "uncond", counting)
    pipe = pipeline(family)
    lazyneg.apply(pipe, 0, adaptive=True)
    rows = rows_of(pipe)
    latents(pipe, family, num_images_per_prompt=2)
    if family == "sd":
        assert rows == [4, 2] * 2 + [4, 1] * 2 + [4]
    elif family == "flux":
        # In a batch of its own there is no telling what has rows.
        assert rows == [2, 2, 2] * 4 + [2, 2]
    else:
        assert rows == [4, 2, 4, 2] * 2 + [4, 2, 4, 1] * 2 + [4, 4]


def test_an_interrupted_call_leaves_nothing(pipe: Any) -> None:
    lazyneg.apply(pipe, 0, area=30, adaptive=True)
    made = latents(pipe)

    def interrupt(_: Any, step: int, *rest: Any) -> Any:
        if step == 2:
            raise KeyboardInterrupt
        return rest[-1]

    before = {name: set(vars(part)) for name, part in pipe.components.items() if part}
    with pytest.raises(KeyboardInterrupt):
        latents(pipe, prompt="cat", callback_on_step_end=interrupt)
    assert {name: set(vars(part)) for name, part in pipe.components.items() if part} == before
    assert torch.equal(latents(pipe), made)


def test_random_numbers_of_the_denoiser(pipe: Any) -> None:
    """Of a model that is being trained, say; they are those of the call without a third row."""

    def noisy(_: Any, args: Any, output: Any) -> None:
        output[0].add_(0.01 * torch.randn(output[0].shape[1:]))

    pipe.unet.register_forward_hook(noisy)
    prompt, negative = UNSEEN["sd"]
    torch.manual_seed(3)
    empty = latents(pipe, prompt=prompt, negative_prompt="")
    after = torch.get_rng_state()
    lazyneg.apply(pipe, 0, adaptive=True)
    torch.manual_seed(3)
    assert torch.equal(latents(pipe, prompt=prompt, negative_prompt=negative), empty)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_cache_gets_a_context_of_its_own() -> None:
    pipe = pipeline("flux")
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    prompt, negative = UNSEEN["flux"]
    empty = latents(pipe, "flux", prompt=prompt, negative_prompt="")
    lazyneg.apply(pipe, 0, adaptive=True)
    assert torch.equal(latents(pipe, "flux", prompt=prompt, negative_prompt=negative), empty)
    lazyneg.remove(pipe)
    plain = latents(pipe, "flux")
    lazyneg.apply(pipe, 0, adaptive=True)
    made = latents(pipe, "flux")
    assert (made - plain).norm() < 1e-4 * plain.norm()


def test_a_cache_without_contexts_is_refused() -> None:
    pipe = pipeline("flux")
    pipe.transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 1001),
            current_timestep_callback=lambda: 500,
        )
    )
    lazyneg.apply(pipe, 0, adaptive=True)
    with pytest.raises(DelayError, match="PyramidAttentionBroadcastHook"):
        latents(pipe, "flux")


class Counting(AttnProcessor2_0):
    """One of the user's, that counts."""

    count = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return super().__call__(*args, **kwargs)


class Corrected(OwnLoop):
    """Denoises twice in a step, once where the first time leads."""

    @torch.no_grad()
    def __call__(self, prompt: str, negative_prompt: str | None = None, **more: Any) -> Any:
        embeds, latents = self.begun(prompt, negative_prompt, **more)

        def denoised(at: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            noise = self.unet(torch.cat([at] * 2), t, encoder_hidden_states=embeds).sample
            uncond, text = noise.chunk(2)
            return torch.as_tensor(uncond + 5.0 * (text - uncond))

        for t in self.scheduler.timesteps:
            first = denoised(latents, t)
            second = denoised(latents - 0.01 * first, t)
            latents = self.scheduler.step((first + second) / 2, t, latents).prev_sample
        return (latents,)


def test_outputs_that_go_into_both_the_picture_and_a_model_are_refused() -> None:
    pipe = Corrected(**pipeline("sd").components)
    lazyneg.apply(pipe, 1)
    assert pipe(**request("sd"))[0].isfinite().all()
    lazyneg.apply(pipe, 1, area=20)
    with pytest.raises(DelayError, match="area and adaptive"):
        pipe(**request("sd"))


def test_attention_processors_of_others_are_refused(pipe: Any) -> None:
    pipe.unet.set_attn_processor(Counting())
    lazyneg.apply(pipe, 0, area=20)
    with pytest.raises(DelayError, match="Counting, which may look at the whole batch"):
        latents(pipe)


@pytest.mark.filterwarnings("ignore:You have passed 2 text prompts:FutureWarning")
def test_guidance_by_three_is_refused() -> None:
    pipe = StableDiffusionInstructPix2PixPipeline(
        **_stable_diffusion(unet=unet(in_channels=8).eval())
    )
    pipe.set_progress_bar_config(disable=True)
    call = request("sd", image=torch.rand(1, 3, 16, 16))
    del call["height"], call["width"]
    lazyneg.apply(pipe, 0, area=20)
    with pytest.raises(DelayError, match="several rows with the negative prompt"):
        pipe(**call)


def test_an_attention_map_of_one_row_for_another_call_is_refused() -> None:
    pipe = StableDiffusionSAGPipeline(**_stable_diffusion(unet=unet().eval()))
    pipe.set_progress_bar_config(disable=True)
    lazyneg.apply(pipe, 0, area=20)
    with pytest.raises(DelayError, match="what becomes of its output"):
        pipe(**request("sd"))


def test_several_controlnets() -> None:
    parts = pipeline("sd controlnet").components
    parts.pop("image_encoder", None)
    net = parts["controlnet"]
    pipe = StableDiffusionControlNetPipeline(**{**parts, "controlnet": [net, net]})
    pipe.set_progress_bar_config(disable=True)

    def arguments(**more: Any) -> dict[str, Any]:
        images = [torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))] * 2
        scales = [0.5, 0.7]
        return request("sd controlnet", image=images, controlnet_conditioning_scale=scales, **more)

    def alone(**more: Any) -> dict[str, Any]:
        return {**arguments(**more), "controlnet_conditioning_scale": [0.5, 0.5]}

    rows = rows_of(pipe)
    lazyneg.apply(pipe, 1, adaptive=True, area=30)
    made = pipe(**arguments())[0]
    # Two rows of numbers that are not rows: pictures and scales.
    assert rows == [2, 2] + [2, 1, 2, 1] * 4
    lazyneg.remove(pipe)
    expected = third_row(pipe, arguments, range(1, 5), 30, True)
    assert torch.equal(made, expected)
    assert not torch.equal(made, third_row(pipe, alone, range(1, 5), 30, True))


def test_guess_mode() -> None:
    """Its ControlNet gets the prompt only: residuals of the other rows are zeros."""
    pipe = pipeline("sd controlnet")
    prompt, negative = UNSEEN["sd controlnet"]
    empty = latents(pipe, "sd controlnet", prompt=prompt, negative_prompt="", guess_mode=True)
    plain = latents(pipe, "sd controlnet", guess_mode=True)
    lazyneg.apply(pipe, 0, adaptive=True)
    made = latents(pipe, "sd controlnet", guess_mode=True)
    assert (made - plain).norm() < 1e-4 * plain.norm()
    more = {"prompt": prompt, "negative_prompt": negative, "guess_mode": True}
    assert torch.equal(latents(pipe, "sd controlnet", **more), empty)


def test_ip_adapter(pipe: Any) -> None:
    """Rows of its own differ with the prompt only: that they are rows has to be asked."""
    generator = torch.Generator().manual_seed(4)
    image = torch.randn(2, 1, 16, generator=generator)
    options: dict[str, Any] = {"ip_adapter_image_embeds": [image]}
    add_ip_adapter(pipe, generator)
    rows = rows_of(pipe)
    lazyneg.apply(pipe, 1, area=30, adaptive=True)
    made = latents(pipe, num_images_per_prompt=2, **options)
    assert rows == [4] + [4, 2] * 4
    expected = loop(pipe, 1, area=30, adaptive=True, num_images_per_prompt=2, **options)
    assert torch.equal(made, expected)


def zimage() -> tuple[Any, dict[str, Any], torch.Tensor]:
    """Its batches are lists."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        )
        pipe = ZImagePipeline(
            transformer=transformer.eval(),
            vae=vae().eval(),
            text_encoder=None,
            tokenizer=None,
            scheduler=FlowMatchEulerDiscreteScheduler(),
        )
        texts = [torch.randn(length, 16) for length in (5, 7, 4)]
    pipe.set_progress_bar_config(disable=True)
    arguments = {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": [texts[0]],
        "negative_prompt_embeds": [texts[1]],
        "height": 32,
        "width": 32,
    }
    return pipe, arguments, texts[2]


def test_a_batch_that_is_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, arguments, early = zimage()

    def call(**more: Any) -> torch.Tensor:
        return torch.as_tensor(pipe(**request("sd", **arguments, **more))[0])

    plain = call()
    batches: list[int] = []
    pipe.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    lazyneg.apply(pipe, 1, area=20, early_prompt_embeds=[early])
    chosen = call(num_images_per_prompt=2)
    assert batches == [4] + [4, 2] * 4
    lazyneg.apply(pipe, 1, early_prompt_embeds=[early])
    delayed = call()
    monkeypatch.setattr("lazyneg.core.guidance.contained", lambda *_: 1.0)
    lazyneg.apply(pipe, 1, adaptive=True, early_prompt_embeds=[early])
    assert (call() - delayed).norm() < 1e-4 * (delayed - plain).norm()
    assert not torch.equal(chosen[:1], delayed)
    # A picture in which it does not act is that of the early prompt.
    monkeypatch.setattr("lazyneg.core.guidance.contained", lambda *_: 0.0)
    never = call()
    lazyneg.apply(pipe, 5, early_prompt_embeds=[early])
    assert torch.equal(never, call())


def test_positions_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a video: a multiple of the batch's rows in a tuple of two, and one video of a prompt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = CogVideoXPipeline(
            tokenizer=_t5_tokenizer(),
            text_encoder=_t5().eval(),
            vae=AutoencoderKLCogVideoX(
                down_block_types=("CogVideoXDownBlock3D",) * 4,
                up_block_types=("CogVideoXUpBlock3D",) * 4,
                block_out_channels=(8,) * 4,
                latent_channels=4,
                layers_per_block=1,
                norm_num_groups=2,
            ),
            transformer=CogVideoXTransformer3DModel(
                num_attention_heads=4,
                attention_head_dim=16,
                in_channels=4,
                out_channels=4,
                time_embed_dim=2,
                text_embed_dim=32,
                num_layers=1,
                sample_width=2,
                sample_height=2,
                sample_frames=9,
                max_text_seq_length=16,
                use_rotary_positional_embeddings=True,
            ).eval(),
            scheduler=DDIMScheduler(),
        )
    pipe.set_progress_bar_config(disable=True)
    call = {"num_frames": 8, "max_sequence_length": 16, "height": 16, "width": 16}
    plain = pipe(**request("sd", **call))[0]
    empty = pipe(**request("sd", **call, negative_prompt=""))[0]
    monkeypatch.setattr("lazyneg.core.guidance.contained", lambda *_: 1.0)
    rows = rows_of(pipe)
    lazyneg.apply(pipe, 0, adaptive=True)
    made = pipe(**request("sd", **call))[0]
    assert rows == [2, 1] * 5
    assert (made - plain).norm() < 1e-4 * (empty - plain).norm()


@pytest.mark.parametrize("family", ["sd", "flux", "sd controlnet"])
def test_images_per_prompt_of_every_kind_of_guidance(family: str) -> None:
    pipe = pipeline(family)
    lazyneg.apply(pipe, 1, adaptive=True)
    options: dict[str, Any] = {"num_images_per_prompt": 2}

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    batch = latents(pipe, family, generator=generators(1, 2), **options)
    for seed, made in zip((1, 2), batch, strict=True):
        single = latents(pipe, family, generator=generators(seed))
        assert (single[0] - made).norm() < 1e-5 * made.norm()


@pytest.mark.parametrize(
    ("values", "message"),
    [({"area": 0}, "area is 0"), ({"area": 101}, "area is 101"), ({"adaptive": 1}, "adaptive is")],
)
@pytest.mark.parametrize("use", [lazyneg.apply, lazyneg.forward_lazy_negative])
def test_bad_values(
    pipe: Any, use: Callable[..., Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        use(pipe, **values)
    assert not hasattr(pipe, "_lazyneg")


def test_for_one_call_and_as_a_context_manager(pipe: Any) -> None:
    expected = loop(pipe, 1, area=30, adaptive=True)
    way: dict[str, Any] = {"critical_step": 1, "area": 30, "adaptive": True}
    assert torch.equal(lazyneg.forward_lazy_negative(pipe, **request("sd"), **way)[0], expected)
    with lazyneg.lazy_negative(pipe, **way):
        assert torch.equal(latents(pipe), expected)
