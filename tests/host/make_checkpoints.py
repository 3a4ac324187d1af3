"""Makes the small random checkpoints that A1111 is tested on. Runs in its own Python.

Usage: python make_checkpoints.py WEBUI_DIR DATA_DIR

The shapes are those of the host's own model classes, the weights are random, so that every word
of every prompt shows in the picture. Files (in the folders that the host looks into):

- ``sd1``, ``sd1b``: Stable Diffusion 1, twice; ``sd1-long``, the first with its usual noise
  levels; ``sd1-inpainting``; ``sd1-edit``, which edits by instructions as InstructPix2Pix does;
  ``sd2``, ``sd2-v``; ``sdxl``, ``sdxl-refiner``; ``sd3``.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path
from typing import Any

WEBUI, DATA = (Path(argument).resolve() for argument in sys.argv[1:3])
for repository in ("stable-diffusion-stability-ai", "generative-models", "k-diffusion"):
    sys.path.insert(0, str(WEBUI / "repositories" / repository))

import open_clip
import torch
import yaml
from ldm.models.autoencoder import AutoencoderKL
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file
from sgm.modules.diffusionmodules.openaimodel import UNetModel as UNetModelXL
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

Tensors = dict[str, torch.Tensor]

WIDTH = 64  # of a text encoder; the host fixes only its vocabulary
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "projection_dim": WIDTH,
    "vocab_size": 49408,
}
VAE_CONFIG = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def main() -> None:
    """Writes all files."""
    checkpoints = DATA / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True, exist_ok=True)
    clip = DATA / "clip"
    write_clip(clip)
    open_clip.add_model_config(Path(__file__).parent / "support" / "open_clip")

    sd1 = sd1_weights(1, in_channels=4)
    save(checkpoints / "sd1", sd1, ldm_config(unet_config(4), clip_config(clip)))
    # Stable Diffusion's own noise levels: on the short range of the others, a sampler that
    # chooses its steps by the error it makes takes hundreds.
    long = {"linear_start": 0.00085, "linear_end": 0.012}
    save(checkpoints / "sd1-long", sd1, ldm_config(unet_config(4), clip_config(clip), **long))
    inpainting = {
        "target": "ldm.models.diffusion.ddpm.LatentInpaintDiffusion",
        "conditioning_key": "hybrid",
        "finetune_keys": None,
    }
    edit = {
        "target": "modules.models.diffusion.ddpm_edit.LatentDiffusion",
        "conditioning_key": "hybrid",
        "cond_stage_key": "edit",
        "first_stage_key": "edited",
    }
    for name, seed, channels, about in (
        ("sd1b", 2, 4, {}),
        ("sd1-inpainting", 3, 9, inpainting),
        ("sd1-edit", 10, 8, edit),
    ):
        config = ldm_config(unet_config(channels), clip_config(clip), **about)
        save(checkpoints / name, sd1_weights(seed, in_channels=channels), config)
    for name, seed, parameterization in (("sd2", 4, "eps"), ("sd2-v", 5, "v")):
        config = unet_config(4, use_linear_in_transformer=True)
        save(
            checkpoints / name,
            {
                **unet_weights(UNetModel, config, seed),
                **vae_weights(seed),
                **open_clip_weights("cond_stage_model.model.", seed),
            },
            ldm_config(
                config,
                open_clip_config("ldm", "FrozenOpenCLIPEmbedder"),
                parameterization=parameterization,
            ),
        )
    write_sdxl(checkpoints, clip)
    write_sd3(checkpoints)


def random_like(state: Tensors, seed: int, **louder: float) -> Tensors:
    """Random weights that keep the size of what passes through; some parts made louder."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in state.items():
        if not value.is_floating_point():
            weights[name] = value.clone()
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith(("embedding.weight", "positional_embedding")):
            noise *= 0.3 if "position" in name else 1
        elif value.ndim >= 2:
            noise /= math.sqrt(math.prod(value.shape[1:]))
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.05
        for part, factor in louder.items():
            if part in name and value.ndim >= 2:
                noise *= factor
        weights[name] = noise.contiguous()
    return weights


def prefixed(prefix: str, weights: Tensors) -> Tensors:
    return {prefix + name: value for name, value in weights.items()}


def unet_config(in_channels: int, **changes: Any) -> dict[str, Any]:
    return {
        "image_size": 32,
        "in_channels": in_channels,
        "out_channels": 4,
        "model_channels": 32,  # the host's norms have 32 groups
        "attention_resolutions": [2, 1],
        "num_res_blocks": 1,
        "channel_mult": [1, 2],
        "num_heads": 4,
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": WIDTH,
        "use_checkpoint": False,
        "legacy": False,
        **changes,
    }


def unet_weights(model: Any, config: dict[str, Any], seed: int) -> Tensors:
    # Louder cross-attention: a prompt must show in the picture.
    return prefixed(
        "model.diffusion_model.",
        random_like(model(**config).state_dict(), seed, attn2=2.0),
    )


def vae_weights(seed: int) -> Tensors:
    vae = AutoencoderKL(VAE_CONFIG, {"target": "torch.nn.Identity"}, embed_dim=4)
    return prefixed("first_stage_model.", random_like(vae.state_dict(), seed))


def clip_weights(prefix: str, seed: int, model: Any = CLIPTextModel) -> Tensors:
    weights = random_like(model(CLIPTextConfig(**TEXT)).state_dict(), seed)
    return prefixed(prefix, {k: v for k, v in weights.items() if "position_ids" not in k})


def open_clip_weights(prefix: str, seed: int) -> Tensors:
    weights = random_like(open_clip.create_model("lazyneg-test").state_dict(), seed)
    return prefixed(
        prefix,
        {k: v for k, v in weights.items() if not k.startswith("visual.") and k != "attn_mask"},
    )


def sd1_weights(seed: int, in_channels: int) -> Tensors:
    return {
        **unet_weights(UNetModel, unet_config(in_channels), seed),
        **vae_weights(seed),
        **clip_weights("cond_stage_model.transformer.", seed),
    }


def clip_config(folder: Path) -> dict[str, Any]:
    return {
        "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
        "params": {"version": str(folder)},
    }


def open_clip_config(package: str, embedder: str, **params: Any) -> dict[str, Any]:
    return {
        "target": f"{package}.modules.encoders.modules.{embedder}",
        "params": {
            "arch": "lazyneg-test",
            "version": "none",
            "freeze": True,
            "layer": "penultimate",
            **params,
        },
    }


def ldm_config(unet: dict[str, Any], text: dict[str, Any], **changes: Any) -> dict[str, Any]:
    params = {
        # A short range of noise levels: an untrained UNet does not denoise, and from a long one
        # the first step alone would decide the picture.
        "linear_start": 0.0005,
        "linear_end": 0.002,
        "num_timesteps_cond": 1,
        "timesteps": 1000,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": 0.18215,
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": unet,
        },
        "first_stage_config": vae_config("ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": text,
    }
    target = changes.pop("target", "ldm.models.diffusion.ddpm.LatentDiffusion")
    return {"model": {"target": target, "params": {**params, **changes}}}


def vae_config(target: str) -> dict[str, Any]:
    return {
        "target": target,
        "params": {
            "embed_dim": 4,
            "ddconfig": VAE_CONFIG,
            "lossconfig": {"target": "torch.nn.Identity"},
        },
    }


def write_sdxl(folder: Path, clip: Path) -> None:
    """SDXL's base (two text encoders) and its refiner (one, and an aesthetic score)."""

    def embedder(key: str, config: dict[str, Any]) -> dict[str, Any]:
        return {"is_trainable": False, "input_key": key, **config}

    def number(key: str) -> dict[str, Any]:
        target = "sgm.modules.encoders.modules.ConcatTimestepEmbedderND"
        return embedder(key, {"target": target, "params": {"outdim": 32}})

    clip_l = embedder(
        "txt",
        {
            "target": "sgm.modules.encoders.modules.FrozenCLIPEmbedder",
            "params": {"version": str(clip), "layer": "hidden", "layer_idx": 2},
        },
    )
    clip_g = embedder(
        "txt",
        open_clip_config("sgm", "FrozenOpenCLIPEmbedder2", always_return_pooled=True, legacy=False),
    )
    size = [number("original_size_as_tuple"), number("crop_coords_top_left")]
    base = [clip_l, clip_g, *size, number("target_size_as_tuple")]
    refiner = [clip_g, *size, number("aesthetic_score")]
    for name, seed, embedders, width, numbers in (
        ("sdxl", 6, base, 2 * WIDTH, 6),
        ("sdxl-refiner", 7, refiner, WIDTH, 5),
    ):
        config = unet_config(
            4,
            context_dim=width,
            adm_in_channels=WIDTH + numbers * 32,
            num_classes="sequential",
            use_linear_in_transformer=True,
            transformer_depth=[1, 1],
            spatial_transformer_attn_type="softmax",
        )
        del config["image_size"]
        weights = {**unet_weights(UNetModelXL, config, seed), **vae_weights(seed)}
        if clip_l in embedders:
            weights |= clip_weights("conditioner.embedders.0.transformer.", seed)
        index = embedders.index(clip_g)
        weights |= open_clip_weights(f"conditioner.embedders.{index}.model.", seed)
        part = "sgm.modules.diffusionmodules."
        denoiser = {
            "num_idx": 1000,
            "weighting_config": {"target": part + "denoiser_weighting.EpsWeighting"},
            "scaling_config": {"target": part + "denoiser_scaling.EpsScaling"},
            "discretization_config": {"target": part + "discretizer.LegacyDDPMDiscretization"},
        }
        params = {
            "scale_factor": 0.13025,
            "disable_first_stage_autocast": True,
            "denoiser_config": {"target": part + "denoiser.DiscreteDenoiser", "params": denoiser},
            "network_config": {
                "target": part + "openaimodel.UNetModel",
                "params": {**config, "spatial_transformer_attn_type": "softmax-xformers"},
            },
            "conditioner_config": {
                "target": "sgm.modules.GeneralConditioner",
                "params": {"emb_models": embedders},
            },
            "first_stage_config": vae_config(
                "sgm.models.autoencoder.AutoencoderKLInferenceWrapper"
            ),
        }
        save(
            folder / name,
            weights,
            {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": params}},
        )


def write_sd3(folder: Path) -> None:
    """SD3: the host reads the transformer's sizes from the weights, no YAML is needed."""
    sys.path.insert(0, str(WEBUI))
    sys.argv[1:] = ["--skip-torch-cuda-test", "--use-cpu", "all", "--data-dir", str(DATA)]
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from modules import initialize

    initialize.imports()  # the host's modules can only be loaded in its own order
    from modules.models.sd3.mmdit import MMDiT

    depth, side = 2, 32
    transformer = MMDiT(
        input_size=None,
        pos_embed_max_size=side,
        num_patches=side * side,
        patch_size=2,
        in_channels=16,
        depth=depth,
        adm_in_channels=2 * WIDTH,
        context_embedder_config={
            "target": "torch.nn.Linear",
            "params": {"in_features": 4096, "out_features": 64 * depth},
        },
    )
    weights = prefixed(
        "model.diffusion_model.",
        random_like(transformer.state_dict(), 8, context_embedder=5.0, adaLN=0.5),
    )
    for seed, name in ((8, "clip_l"), (9, "clip_g")):
        weights |= clip_weights(
            f"text_encoders.{name}.transformer.", seed, CLIPTextModelWithProjection
        )
    vae = {**VAE_CONFIG, "z_channels": 16}
    for name, model in (("encoder", Encoder), ("decoder", Decoder)):
        weights |= prefixed(f"first_stage_model.{name}.", random_like(model(**vae).state_dict(), 8))
    save(folder / "sd3", weights, None)


def write_clip(folder: Path) -> None:
    """A small CLIP's configuration, with the tokenizer that open_clip ships."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(bpe, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    words += ["".join(merge.split()) for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    start, end = words[-2:]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    files = {
        "vocab.json": {word: index for index, word in enumerate(words)},
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": start,
            "eos_token": end,
            "unk_token": end,
            "pad_token": end,
        },
        "config.json": {"model_type": "clip", "projection_dim": WIDTH, "text_config": TEXT},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def save(path: Path, weights: Tensors, config: dict[str, Any] | None) -> None:
    save_file(weights, path.with_suffix(".safetensors"))
    if config is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


main()
