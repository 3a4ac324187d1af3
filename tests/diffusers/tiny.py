"""Small random pipelines of many families, made here: nothing is downloaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLMochi,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    AutoencoderOobleck,
    ControlNetModel,
    CosineDPMSolverMultistepScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    LattePipeline,
    LatteTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    MotionAdapter,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, normalizers, processors
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

# Small work on small models: threads would only get in each other's way.
torch.set_num_threads(1)

_BYTES = sorted(ByteLevel.alphabet())
_PIECES = ["▁", *map(chr, range(33, 127))]
_WIDTH = 32


def _read(kind: Any, files: dict[str, str], **more: Any) -> Any:
    """A tokenizer from its files, which is what all versions of transformers can make one of."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, "utf-8")
        return kind.from_pretrained(folder, **more)


def _bytewise(tokens: Iterable[str]) -> dict[str, str]:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return {"vocab.json": json.dumps(vocabulary), "merges.txt": "#version: 0.2\n"}


def clip_tokenizer() -> CLIPTokenizer:
    pieces = [*_BYTES, *(f"{byte}</w>" for byte in _BYTES), "<|startoftext|>", "<|endoftext|>"]
    return _read(CLIPTokenizer, _bytewise(pieces), model_max_length=77)


def _t5_tokenizer() -> T5TokenizerFast:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -1.0) for piece in _PIECES)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return _read(T5TokenizerFast, {"tokenizer.json": tokenizer.to_str()}, extra_ids=0)


def _gemma_tokenizer() -> GemmaTokenizerFast:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *_PIECES]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return _read(GemmaTokenizerFast, {"tokenizer.json": tokenizer.to_str()})


def clip(projection: bool = False) -> Any:
    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=_WIDTH,
        intermediate_size=64,
        projection_dim=_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def _t5(model: Any = T5EncoderModel, config: Any = T5Config) -> Any:
    return model(config(vocab_size=128, d_model=_WIDTH, d_ff=64, d_kv=8, num_layers=2, num_heads=4))


def vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        shift_factor=0.05,
        scaling_factor=1.5,
    )


def unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "layers_per_block": 1,
            "block_out_channels": (16, 32),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": _WIDTH,
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            **config,
        }
    )


def _xl_unet() -> UNet2DConditionModel:
    return unet(
        cross_attention_dim=2 * _WIDTH,
        transformer_layers_per_block=(1, 1),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=_WIDTH + 6 * 8,
    )


def _stable_diffusion(**more: Any) -> dict[str, Any]:
    return {
        "unet": unet(),
        "vae": vae(),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        "safety_checker": None,
        "feature_extractor": None,
        **more,
    }


def _xl() -> dict[str, Any]:
    return {
        "unet": _xl_unet(),
        "vae": vae(),
        "text_encoder": clip(),
        "text_encoder_2": clip(projection=True),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    }


def _controlnet() -> ControlNetModel:
    net = ControlNetModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(8, 16),
    )
    # Made with zeros, which would keep all of it out of the picture.
    for block in [*net.controlnet_down_blocks, net.controlnet_mid_block]:
        torch.nn.init.normal_(block.weight, std=0.1)
    torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=0.1)
    return net


def _sd3() -> dict[str, Any]:
    return {
        "transformer": SD3Transformer2DModel(
            sample_size=16,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=_WIDTH,
            joint_attention_dim=2 * _WIDTH,
            pooled_projection_dim=2 * _WIDTH,
        ),
        "vae": vae(),
        "text_encoder": clip(projection=True),
        "text_encoder_2": clip(projection=True),
        "text_encoder_3": _t5_wide(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "tokenizer_3": _t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _t5_wide() -> T5EncoderModel:
    config = T5Config(
        vocab_size=128, d_model=2 * _WIDTH, d_ff=64, d_kv=8, num_layers=2, num_heads=4
    )
    return T5EncoderModel(config)


def _flux() -> dict[str, Any]:
    return {
        "transformer": FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            pooled_projection_dim=_WIDTH,
            axes_dims_rope=(4, 4, 8),
        ),
        "vae": vae(),
        "text_encoder": clip(),
        "text_encoder_2": _t5(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": _t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _pixart() -> dict[str, Any]:
    return {
        "transformer": PixArtTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_channels=_WIDTH,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=_WIDTH,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
        ),
        "vae": vae(),
        "text_encoder": _t5(),
        "tokenizer": _t5_tokenizer(),
        "scheduler": DDIMScheduler(),
    }


def _sana() -> dict[str, Any]:
    blocks = ("ResBlock", "EfficientViTBlock")
    gemma = Gemma2Config(
        vocab_size=512,
        hidden_size=_WIDTH,
        intermediate_size=64,
        head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_hidden_layers=1,
        attn_implementation="eager",
    )
    return {
        "transformer": SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=_WIDTH,
            sample_size=8,
        ),
        "vae": AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
        ),
        "text_encoder": Gemma2Model(gemma),
        "tokenizer": _gemma_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _qwen() -> dict[str, Any]:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>"]
    specials += ["<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _read(Qwen2Tokenizer, _bytewise([*_BYTES, *specials]))
    tokenizer.add_special_tokens({"additional_special_tokens": specials[1:]})
    config = Qwen2_5_VLConfig(
        vocab_size=512,
        hidden_size=_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": _WIDTH},
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    return {
        "transformer": QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            axes_dims_rope=(8, 4, 4),
        ),
        "vae": AutoencoderKLQwenImage(
            base_dim=16,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _wan_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=_WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def _wan(**more: Any) -> dict[str, Any]:
    return {
        "transformer": _wan_transformer(),
        "vae": AutoencoderKLWan(
            base_dim=4,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        "text_encoder": _t5(UMT5EncoderModel, UMT5Config),
        "tokenizer": _t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        **more,
    }


def _animatediff() -> dict[str, Any]:
    adapter = MotionAdapter(
        block_out_channels=(16, 32),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
    )
    parts = _stable_diffusion(motion_adapter=adapter)
    del parts["safety_checker"]
    return parts


def _hunyuandit() -> dict[str, Any]:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [prefix + piece for prefix in ("", "##") for piece in _PIECES]
    bert = BertConfig(
        vocab_size=len(pieces),
        hidden_size=_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return {
        "transformer": HunyuanDiT2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            hidden_size=_WIDTH,
            cross_attention_dim=_WIDTH,
            cross_attention_dim_t5=_WIDTH,
            pooled_projection_dim=16,
        ),
        "vae": vae(),
        "text_encoder": BertModel(bert),
        "tokenizer": _read(BertTokenizer, {"vocab.txt": "\n".join(pieces)}),
        "text_encoder_2": _t5(),
        "tokenizer_2": _t5_tokenizer(),
        "scheduler": DDIMScheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _mochi() -> dict[str, Any]:
    return {
        "transformer": MochiTransformer3DModel(
            patch_size=2,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=_WIDTH,
            time_embed_dim=4,
        ),
        "vae": AutoencoderKLMochi(
            encoder_block_out_channels=(32,) * 4,
            decoder_block_out_channels=(32,) * 4,
            layers_per_block=(1,) * 5,
        ),
        "text_encoder": _t5(),
        "tokenizer": _t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _stable_audio() -> dict[str, Any]:
    tokenizer = _t5_tokenizer()
    tokenizer.model_max_length = 32
    return {
        "transformer": StableAudioDiTModel(
            sample_size=4,
            in_channels=3,
            out_channels=3,
            num_layers=2,
            attention_head_dim=4,
            num_attention_heads=2,
            num_key_value_attention_heads=2,
            cross_attention_dim=4,
            cross_attention_input_dim=4,
            time_proj_dim=8,
            global_states_input_dim=8,
        ),
        "vae": AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[1, 2],
            channel_multiples=[2, 4],
            decoder_channels=3,
            decoder_input_channels=3,
            sampling_rate=4,
        ),
        "text_encoder": _t5(),
        "tokenizer": tokenizer,
        "projection_model": StableAudioProjectionModel(
            text_encoder_dim=_WIDTH, conditioning_dim=4, min_value=0, max_value=32
        ),
        "scheduler": CosineDPMSolverMultistepScheduler(),
    }


def _latte() -> dict[str, Any]:
    return {
        "transformer": LatteTransformer3DModel(
            sample_size=12,
            video_length=2,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            attention_head_dim=8,
            num_attention_heads=4,
            cross_attention_dim=_WIDTH,
            caption_channels=_WIDTH,
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
        ),
        "vae": vae(),
        "text_encoder": _t5(),
        "tokenizer": _t5_tokenizer(),
        "scheduler": DDIMScheduler(),
    }


def _bria() -> dict[str, Any]:
    return {
        "transformer": diffusers.BriaTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            axes_dims_rope=[0, 4, 4],
        ),
        "vae": vae(),
        "text_encoder": _t5(),
        "tokenizer": _t5_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }


def _pixels(seed: int, frames: int = 1) -> torch.Tensor:
    return torch.rand(frames, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


_SMALL = {"height": 16, "width": 16}
_FAMILIES: dict[str, tuple[Any, Callable[[], dict[str, Any]], Callable[[], dict[str, Any]]]] = {
    "sd": (StableDiffusionPipeline, _stable_diffusion, lambda: _SMALL),
    "sd img2img": (
        StableDiffusionImg2ImgPipeline,
        _stable_diffusion,
        lambda: {"image": _pixels(1), "strength": 0.8},
    ),
    "sd inpaint": (
        StableDiffusionInpaintPipeline,
        _stable_diffusion,
        lambda: {**_SMALL, "image": _pixels(1), "mask_image": _pixels(2)[:, :1].round()},
    ),
    "sd controlnet": (
        StableDiffusionControlNetPipeline,
        lambda: _stable_diffusion(controlnet=_controlnet()),
        lambda: {"image": _pixels(1)},
    ),
    "sd pag": (StableDiffusionPAGPipeline, _stable_diffusion, lambda: _SMALL),
    "sdxl": (StableDiffusionXLPipeline, _xl, lambda: _SMALL),
    "sdxl img2img": (
        StableDiffusionXLImg2ImgPipeline,
        _xl,
        lambda: {"image": _pixels(1), "strength": 0.8},
    ),
    "sdxl t2i adapter": (
        StableDiffusionXLAdapterPipeline,
        lambda: {
            **_xl(),
            "adapter": T2IAdapter(
                channels=[16, 32],
                num_res_blocks=1,
                downscale_factor=2,
                adapter_type="full_adapter",
            ),
        },
        lambda: {**_SMALL, "image": _pixels(1)},
    ),
    "sd3": (StableDiffusion3Pipeline, _sd3, lambda: {**_SMALL, "max_sequence_length": 32}),
    "flux": (
        FluxPipeline,
        _flux,
        lambda: {**_SMALL, "max_sequence_length": 32, "true_cfg_scale": 4.0},
    ),
    "pixart": (
        PixArtSigmaPipeline,
        _pixart,
        lambda: {**_SMALL, "max_sequence_length": 32, "use_resolution_binning": False},
    ),
    "sana": (
        SanaPipeline,
        _sana,
        lambda: {
            "height": 32,
            "width": 32,
            "max_sequence_length": 32,
            "use_resolution_binning": False,
            "complex_human_instruction": None,
        },
    ),
    "qwen": (QwenImagePipeline, _qwen, lambda: {**_SMALL, "true_cfg_scale": 4.0}),
    "wan": (
        WanPipeline,
        _wan,
        lambda: {**_SMALL, "num_frames": 5, "max_sequence_length": 32},
    ),
    "wan with two transformers": (
        WanPipeline,
        lambda: _wan(transformer_2=_wan_transformer(), boundary_ratio=0.9),
        lambda: {**_SMALL, "num_frames": 5, "max_sequence_length": 32},
    ),
    "hunyuandit": (
        HunyuanDiTPipeline,
        _hunyuandit,
        lambda: {**_SMALL, "original_size": (16, 16), "use_resolution_binning": False},
    ),
    "mochi": (
        MochiPipeline,
        _mochi,
        lambda: {**_SMALL, "num_frames": 7, "max_sequence_length": 32},
    ),
    "stable audio": (StableAudioPipeline, _stable_audio, lambda: {"audio_end_in_s": 0.5}),
    "latte": (
        LattePipeline,
        _latte,
        lambda: {
            "height": 24,
            "width": 24,
            "video_length": 2,
            "clean_caption": False,
        },
    ),
    "animatediff": (AnimateDiffPipeline, _animatediff, lambda: {**_SMALL, "num_frames": 2}),
}

# diffusers 0.35 does not have it.
if hasattr(diffusers, "BriaPipeline"):
    _FAMILIES["bria"] = (
        diffusers.BriaPipeline,
        _bria,
        lambda: {"height": 24, "width": 24, "max_sequence_length": 32},
    )

FAMILIES = list(_FAMILIES)


def pipeline(family: str) -> Any:
    """A pipeline of a family, on the CPU, the same every time."""
    kind, parts, _ = _FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = kind(**parts())
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def request(family: str, **more: Any) -> dict[str, Any]:
    """Arguments of a call that gives latents, the same every time."""
    return {
        "prompt": "girl eating pizza",
        "negative_prompt": "wearing glasses",
        "num_inference_steps": 5,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
        **_FAMILIES[family][2](),
        **more,
    }


class OwnLoop(StableDiffusionPipeline):
    """What the tests' own denoising loops begin with."""

    def begun(
        self, prompt: str, negative_prompt: str | None, **more: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings, those of the negative prompt first, and latents, with timesteps set."""
        positive, negative = self.encode_prompt(
            prompt, "cpu", 1, True, negative_prompt=negative_prompt
        )
        self.scheduler.set_timesteps(more["num_inference_steps"])
        latents = torch.randn(1, 4, 8, 8, generator=more["generator"])
        return torch.cat([negative, positive]), latents


def add_ip_adapter(pipe: Any, generator: torch.Generator) -> None:
    """Gives the UNet of Stable Diffusion random weights for embeddings of pictures."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    widths = [
        part.to_k.out_features for name, part in pipe.unet.named_modules() if name.endswith("attn2")
    ]
    keys = {
        f"{2 * index + 1}.{name}_ip.weight": random(width, 32)
        for index, width in enumerate(widths)
        for name in ("to_k", "to_v")
    }
    image = {
        "proj.weight": random(4 * 32, 16),
        "proj.bias": random(4 * 32),
        "norm.weight": random(32),
        "norm.bias": random(32),
    }
    pipe.unet._load_ip_adapter_weights([{"image_proj": image, "ip_adapter": keys}])
