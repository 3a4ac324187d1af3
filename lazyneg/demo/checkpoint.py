"""The embedded model's files, in the layout of the first Stable Diffusion.

One checkpoint serves both hosts: the WebUI reads it with the YAML file of the same name beside it,
diffusers with the folder of configurations.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

from lazyneg.demo import CHECKPOINT, CONFIG, architecture
from lazyneg.demo.architecture import LAYERS

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def assemble(unet: Any, vae: Any, text_encoder: Any, tokenizer: Any) -> Any:
    """Puts the parts together to a pipeline."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=architecture.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipe: Any, folder: Path, name: str) -> None:
    """Writes a pipeline as a checkpoint.

    Args:
        pipe: A pipeline of this model's shape.
        folder: Where to write ``NAME.safetensors``, ``NAME.yaml`` and the folder ``config``.
        name: Name of the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: value.half().contiguous()
        for key, value in (
            *_named("model.diffusion_model.", _original_unet(pipe.unet)),
            *_named("first_stage_model.", _original_vae(pipe.vae)),
            *_named("cond_stage_model.transformer.", _original_text(pipe.text_encoder)),
        )
    }
    save_file(weights, folder / f"{name}.safetensors", {"format": "pt"})
    _write_yaml(folder / f"{name}.yaml", f"models/Stable-diffusion/{name}")
    config = folder / "config"
    pipe.save_config(config)
    pipe.unet.save_config(config / "unet")
    pipe.vae.save_config(config / "vae")
    pipe.scheduler.save_config(config / "scheduler")
    pipe.text_encoder.config.save_pretrained(config / "text_encoder")
    # The WebUI wants it beside the tokenizer.
    pipe.text_encoder.config.save_pretrained(config / "tokenizer")


def copy_to(folder: Path) -> Path:
    """Copies the embedded model to where a WebUI looks for checkpoints.

    Args:
        folder: The WebUI's ``models/Stable-diffusion``, or another that it looks into.

    Returns:
        The copied checkpoint.

    Raises:
        OSError: If the folder is not there or cannot be written to.
    """
    name = CHECKPOINT.stem
    clip = folder.resolve() / name
    shutil.copytree(CONFIG / "tokenizer", clip, dirs_exist_ok=True)
    _write_yaml(folder / f"{name}.yaml", str(clip))
    return Path(shutil.copy(CHECKPOINT, folder))


def _write_yaml(path: Path, clip: str) -> None:
    path.write_text(yaml.safe_dump(architecture.webui_config(clip), sort_keys=False), "utf-8")


def _named(prefix: str, weights: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    return ((prefix + key, value) for key, value in weights)


def _renamed(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        key = re.sub(rf"(^|\.){re.escape(ours)}(\.|$)", rf"\g<1>{theirs}\g<2>", key)
    return key


def _original_text(encoder: Any) -> Iterator[tuple[str, Tensor]]:
    for key, value in encoder.state_dict().items():
        if not key.endswith("position_ids"):
            yield "text_model." + key.removeprefix("text_model."), value


def _original_unet(unet: Any) -> Iterator[tuple[str, Tensor]]:
    blocks = {}
    number = 1
    for level, block in enumerate(unet.down_blocks):
        for layer in range(LAYERS):
            blocks[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{number}.0"
            blocks[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{number}.1"
            number += 1
        blocks[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
        number += block.downsamplers is not None
    number = 0
    for level, block in enumerate(unet.up_blocks):
        for layer in range(LAYERS + 1):
            blocks[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{number}.0"
            blocks[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{number}.1"
            number += 1
        place = 2 if hasattr(block, "attentions") else 1
        blocks[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number - 1}.{place}"
    for key, value in unet.state_dict().items():
        names = {**_UNET, **blocks, **(_RESNET if ".resnets." in key else {})}
        yield _renamed(key, names), value


def _original_vae(vae: Any) -> Iterator[tuple[str, Tensor]]:
    names = dict(_VAE)
    levels = len(vae.config.block_out_channels)
    for level in range(levels):
        upper = levels - 1 - level
        for layer in range(LAYERS + 1):
            names[f"down_blocks.{level}.resnets.{layer}"] = f"down.{level}.block.{layer}"
            names[f"up_blocks.{level}.resnets.{layer}"] = f"up.{upper}.block.{layer}"
        names[f"down_blocks.{level}.downsamplers.0"] = f"down.{level}.downsample"
        names[f"up_blocks.{level}.upsamplers.0"] = f"up.{upper}.upsample"
    for key, value in vae.state_dict().items():
        # The original's attention is made of convolutions.
        linear = ".attentions." in key and value.dim() == 2
        yield _renamed(key, names), value[:, :, None, None] if linear else value
