"""The embedded model's shapes, for diffusers' classes and as the WebUI's configuration.

Both hosts' layers fix some of them: channels in multiples of 32, for the norms' groups; whole
multiples of the first level's; four levels of the autoencoder; 77 tokens.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from lazyneg.demo.scenes import SIZE

LATENT = SIZE // 8
"""Width and height of the latents."""

TOKENS = 77
"""Length of every prompt."""

LAYERS = 1
"""Residual blocks in each level."""

_TEXT = 64
_LEVELS = (96, 96)
_HEADS = 4
_VAE = (32, 32, 32, 96)
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012}


def unet() -> Any:
    """The denoiser, with random weights."""
    return UNet2DConditionModel(
        sample_size=LATENT,
        layers_per_block=LAYERS,
        block_out_channels=_LEVELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=_TEXT,
        attention_head_dim=_HEADS,  # the number of heads, by an old mistake in diffusers
    )


def vae() -> Any:
    """The autoencoder, with random weights."""
    return AutoencoderKL(
        sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * len(_VAE),
        up_block_types=("UpDecoderBlock2D",) * len(_VAE),
        block_out_channels=_VAE,
        layers_per_block=LAYERS,
        scaling_factor=1.0,
    )


def text_encoder(vocabulary: int) -> Any:
    """The text encoder, with random weights.

    Args:
        vocabulary: Number of tokens; the last two begin and end a text.
    """
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=_TEXT,
            intermediate_size=2 * _TEXT,
            projection_dim=_TEXT,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def scheduler() -> Any:
    """Stable Diffusion's noise levels."""
    return DDIMScheduler(
        **_NOISE,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def webui_config(clip: str) -> dict[str, Any]:
    """The configuration that the WebUI reads from a checkpoint's YAML file.

    Args:
        clip: Folder with the tokenizer and the text encoder's configuration.
    """
    multiples = [width // _VAE[0] for width in _VAE]
    return {
        "model": {
            "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
            "params": {
                "linear_start": _NOISE["beta_start"],
                "linear_end": _NOISE["beta_end"],
                "num_timesteps_cond": 1,
                "timesteps": 1000,
                "first_stage_key": "jpg",
                "cond_stage_key": "txt",
                "image_size": LATENT,
                "channels": 4,
                "cond_stage_trainable": False,
                "conditioning_key": "crossattn",
                "parameterization": "v",
                "scale_factor": 1.0,
                "use_ema": False,
                "unet_config": {
                    "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                    "params": {
                        "image_size": LATENT,
                        "in_channels": 4,
                        "out_channels": 4,
                        "model_channels": _LEVELS[0],
                        "attention_resolutions": [2],
                        "num_res_blocks": LAYERS,
                        "channel_mult": [width // _LEVELS[0] for width in _LEVELS],
                        "num_heads": _HEADS,
                        "use_spatial_transformer": True,
                        "transformer_depth": 1,
                        "context_dim": _TEXT,
                        "use_checkpoint": False,
                        "legacy": False,
                    },
                },
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {
                        "embed_dim": 4,
                        "ddconfig": {
                            "double_z": True,
                            "z_channels": 4,
                            "resolution": SIZE,
                            "in_channels": 3,
                            "out_ch": 3,
                            "ch": _VAE[0],
                            "ch_mult": multiples,
                            "num_res_blocks": LAYERS,
                            "attn_resolutions": [],
                            "dropout": 0.0,
                        },
                        "lossconfig": {"target": "torch.nn.Identity"},
                    },
                },
                "cond_stage_config": {
                    "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                    "params": {"version": clip},
                },
            },
        }
    }
