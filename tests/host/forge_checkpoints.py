"""Checkpoints that the Forge family loads, as small as that goes.

These hosts tell a family by the shapes in a file, and build text encoder and autoencoder from
configurations of their own: those parts have their full size. The denoiser keeps the width and the
context of its family and is narrow elsewhere. All weights are random, but for one path through the
denoiser that lets it denoise: it predicts its input's own direction and adds what the prompt says.
Without it the first step would decide the picture, and later ones would not show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH = 320
TEXT = 768
LATENT = 4
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def write_sd1(data: Path) -> None:
    """Writes those of Stable Diffusion 1 into a WebUI's data folder."""
    folder = data / "models" / "Stable-diffusion"
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, channels in (("sd1", 1, LATENT), ("sd1b", 2, LATENT), ("sd1-inpainting", 3, 9)):
        weights = {
            **_denoiser(seed, channels, [[1]], TEXT, linear=False),
            **_random("first_stage_model.", _vae(), seed),
            **_random("cond_stage_model.transformer.text_model.", _clip(TEXT, 12), seed),
        }
        save_file(weights, folder / f"{name}.safetensors")


def write_sdxl(data: Path) -> None:
    """Stable Diffusion XL: some gigabytes, for its second text encoder."""
    depths = [[0, 0], [2, 2], [10, 10]]
    weights = {
        **_denoiser(6, LATENT, depths, 2048, linear=True, vector=2816),
        **_random("first_stage_model.", _vae(), 6),
        **_random("conditioner.embedders.0.transformer.text_model.", _clip(TEXT, 12), 6),
        **_random("conditioner.embedders.1.model.", _open_clip(1280, 32), 7),
    }
    save_file(weights, data / "models" / "Stable-diffusion" / "sdxl.safetensors")


def _random(prefix: str, shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Random weights that keep the size of what passes through."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes:
        noise = torch.randn(shape, generator=generator)
        if "embedding" in name:
            noise *= 0.3 if "position" in name else 1
        elif len(shape) > 1:
            # Louder cross-attention: a prompt must show in the picture.
            noise *= (2 if "attn2" in name else 1) / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.05
        weights[prefix + name] = noise.half()
    return weights


def _linear(name: str, inside: int, outside: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (outside, inside)
    if bias:
        yield f"{name}.bias", (outside,)


def _conv(name: str, inside: int, outside: int, size: int) -> Shapes:
    yield f"{name}.weight", (outside, inside, size, size)
    yield f"{name}.bias", (outside,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _resblock(name: str, inside: int) -> Shapes:
    yield from _norm(f"{name}.in_layers.0", inside)
    yield from _conv(f"{name}.in_layers.2", inside, WIDTH, 3)
    yield from _linear(f"{name}.emb_layers.1", 4 * WIDTH, WIDTH)
    yield from _norm(f"{name}.out_layers.0", WIDTH)
    yield from _conv(f"{name}.out_layers.3", WIDTH, WIDTH, 3)
    if inside != WIDTH:
        yield from _conv(f"{name}.skip_connection", inside, WIDTH, 1)


def _transformer(name: str, depth: int, context: int, linear: bool) -> Shapes:
    if not depth:
        return
    yield from _norm(f"{name}.norm", WIDTH)
    for projection in ("proj_in", "proj_out"):
        if linear:
            yield from _linear(f"{name}.{projection}", WIDTH, WIDTH)
        else:
            yield from _conv(f"{name}.{projection}", WIDTH, WIDTH, 1)
    for number in range(depth):
        block = f"{name}.transformer_blocks.{number}"
        for attention, keys in (("attn1", WIDTH), ("attn2", context)):
            yield from _linear(f"{block}.{attention}.to_q", WIDTH, WIDTH, bias=False)
            for part in ("to_k", "to_v"):
                yield from _linear(f"{block}.{attention}.{part}", keys, WIDTH, bias=False)
            yield from _linear(f"{block}.{attention}.to_out.0", WIDTH, WIDTH)
        yield from _linear(f"{block}.ff.net.0.proj", WIDTH, 8 * WIDTH)
        yield from _linear(f"{block}.ff.net.2", 4 * WIDTH, WIDTH)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _norm(f"{block}.{norm}", WIDTH)


def _unet(
    channels: int, depths: Sequence[Sequence[int]], context: int, linear: bool, vector: int | None
) -> Shapes:
    """A UNet of one width.

    Args:
        channels: Channels of its input.
        depths: For each level, the blocks of the transformer behind each residual block.
        context: Width of the conditioning.
        linear: Whether transformers project by matrices.
        vector: Width of the pooled conditioning, if there is one.
    """
    embeddings = {"time_embed": WIDTH, **({"label_emb.0": vector} if vector else {})}
    for name, inside in embeddings.items():
        yield from _linear(f"{name}.0", inside, 4 * WIDTH)
        yield from _linear(f"{name}.2", 4 * WIDTH, 4 * WIDTH)
    yield from _conv("input_blocks.0.0", channels, WIDTH, 3)
    number = 1
    for level, blocks in enumerate(depths):
        for depth in blocks:
            yield from _resblock(f"input_blocks.{number}.0", WIDTH)
            yield from _transformer(f"input_blocks.{number}.1", depth, context, linear)
            number += 1
        if level < len(depths) - 1:
            yield from _conv(f"input_blocks.{number}.0.op", WIDTH, WIDTH, 3)
            number += 1
    yield from _resblock("middle_block.0", WIDTH)
    yield from _transformer("middle_block.1", depths[-1][-1] or 1, context, linear)
    yield from _resblock("middle_block.2", WIDTH)
    number = 0
    for level, blocks in reversed(list(enumerate(depths))):
        for place in range(len(blocks) + 1):
            depth = blocks[-1]
            yield from _resblock(f"output_blocks.{number}.0", 2 * WIDTH)
            yield from _transformer(f"output_blocks.{number}.1", depth, context, linear)
            if level and place == len(blocks):
                upsample = f"output_blocks.{number}.{2 if depth else 1}"
                yield from _conv(f"{upsample}.conv", WIDTH, WIDTH, 3)
            number += 1
    yield from _norm("out.0", WIDTH)
    yield from _conv("out.2", WIDTH, LATENT, 3)


def _denoiser(
    seed: int,
    channels: int,
    depths: Sequence[Sequence[int]],
    context: int,
    *,
    linear: bool,
    vector: int | None = None,
) -> dict[str, Tensor]:
    """A random UNet that carries its input through, in the channels of its first norm group."""
    prefix = "model.diffusion_model."
    weights = _random(prefix, _unet(channels, depths, context, linear, vector), seed)
    carried, signs = range(2 * LATENT), [1, -1]
    group = slice(0, WIDTH // 32)
    last = max(
        int(name.split(".")[3]) for name in weights if name.startswith(f"{prefix}output_blocks.")
    )
    block = f"{prefix}output_blocks.{last}"
    for layer in (
        "input_blocks.0.0",
        f"output_blocks.{last}.0.skip_connection",
        f"output_blocks.{last}.0.out_layers.3",
        f"output_blocks.{last}.1.proj_out",
        "out.0",
    ):
        for name in (f"{prefix}{layer}.weight", f"{prefix}{layer}.bias"):
            if name in weights:
                weights[name][group] = 0
    weights[f"{prefix}out.0.weight"][group] = 1
    out = weights[f"{prefix}out.2.weight"]
    out[:, group] = 0
    out *= 0.5
    for channel in carried:
        latent, sign = channel % LATENT, signs[channel // LATENT]
        weights[f"{prefix}input_blocks.0.0.weight"][channel, latent, 1, 1] = sign
        weights[f"{block}.0.skip_connection.weight"][channel, WIDTH + channel] = 1
        # The activation before it: silu(z) - silu(-z) is z.
        out[latent, channel, 1, 1] = sign
    return weights


def _vae() -> Shapes:
    widths = (128, 256, 512, 512)
    for part, ends in (("encoder", (3, 2 * LATENT)), ("decoder", (LATENT, 3))):
        outer, inner = widths[0], widths[-1]
        first, final = (outer, inner) if part == "encoder" else (inner, outer)
        yield from _conv(f"{part}.conv_in", ends[0], first, 3)
        yield from _norm(f"{part}.norm_out", final)
        yield from _conv(f"{part}.conv_out", final, ends[1], 3)
        for block in ("block_1", "block_2"):
            yield from _vae_block(f"{part}.mid.{block}", inner, inner)
        yield from _norm(f"{part}.mid.attn_1.norm", inner)
        for projection in ("q", "k", "v", "proj_out"):
            yield from _conv(f"{part}.mid.attn_1.{projection}", inner, inner, 1)
        levels = list(enumerate(widths))
        before = first
        for level, width in levels if part == "encoder" else levels[::-1]:
            name = f"{part}.{'down' if part == 'encoder' else 'up'}.{level}"
            for number in range(2 if part == "encoder" else 3):
                yield from _vae_block(f"{name}.block.{number}", before, width)
                before = width
            if part == "encoder" and level < len(widths) - 1:
                yield from _conv(f"{name}.downsample.conv", width, width, 3)
            if part == "decoder" and level:
                yield from _conv(f"{name}.upsample.conv", width, width, 3)
    yield from _conv("quant_conv", 2 * LATENT, 2 * LATENT, 1)
    yield from _conv("post_quant_conv", LATENT, LATENT, 1)


def _vae_block(name: str, inside: int, outside: int) -> Shapes:
    yield from _norm(f"{name}.norm1", inside)
    yield from _conv(f"{name}.conv1", inside, outside, 3)
    yield from _norm(f"{name}.norm2", outside)
    yield from _conv(f"{name}.conv2", outside, outside, 3)
    if inside != outside:
        yield from _conv(f"{name}.nin_shortcut", inside, outside, 1)


def _clip(width: int, layers: int) -> Shapes:
    yield "embeddings.token_embedding.weight", (49408, width)
    yield "embeddings.position_embedding.weight", (77, width)
    for number in range(layers):
        layer = f"encoder.layers.{number}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{projection}", width, width)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _linear(f"{layer}.mlp.fc1", width, 4 * width)
        yield from _linear(f"{layer}.mlp.fc2", 4 * width, width)
        yield from _norm(f"{layer}.layer_norm2", width)
    yield from _norm("final_layer_norm", width)


def _open_clip(width: int, layers: int) -> Shapes:
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield "token_embedding.weight", (49408, width)
    for number in range(layers):
        layer = f"transformer.resblocks.{number}"
        yield f"{layer}.attn.in_proj_weight", (3 * width, width)
        yield f"{layer}.attn.in_proj_bias", (3 * width,)
        yield from _linear(f"{layer}.attn.out_proj", width, width)
        yield from _norm(f"{layer}.ln_1", width)
        yield from _norm(f"{layer}.ln_2", width)
        yield from _linear(f"{layer}.mlp.c_fc", width, 4 * width)
        yield from _linear(f"{layer}.mlp.c_proj", 4 * width, width)
    yield from _norm("ln_final", width)
