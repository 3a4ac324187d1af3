"""A textual inversion and a LoRA for the checkpoints of the tests."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

EMBEDDING = "EasyNegativeV2"
LORA = "style"


def write_embedding(data: Path, width: int) -> None:
    """A textual inversion of two tokens.

    Args:
        data: The WebUI's data folder.
        width: Width of the text encoder's tokens.
    """
    folder = data / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(10))
    save_file({"emb_params": vectors}, folder / f"{EMBEDDING}.safetensors")


def write_lora(data: Path) -> None:
    """Rank 2 on one matrix of the text encoder and one of the UNet of the checkpoint sd1.

    Args:
        data: The WebUI's data folder, with the checkpoint.
    """
    folder = data / "models" / "Lora"
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(11)
    lora = {}
    with safe_open(data / "models" / "Stable-diffusion" / "sd1.safetensors", "pt") as sd1:
        for name, key in (
            (
                "lora_te_text_model_encoder_layers_1_self_attn_q_proj",
                "cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight",
            ),
            (
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
                "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
            ),
        ):
            rows, columns = sd1.get_slice(key).get_shape()
            lora[f"{name}.lora_up.weight"] = torch.randn(rows, 2, generator=generator)
            lora[f"{name}.lora_down.weight"] = torch.randn(2, columns, generator=generator)
            lora[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(lora, folder / f"{LORA}.safetensors")
