"""The denoiser: Stable Diffusion's training, small."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lazyneg.demo import architecture
from lazyneg.demo.training import batches, loop
from lazyneg.demo.training.autoencoder import NOISE, Whitening

# An error in the latents counts as much as the signal-to-noise ratio says, but steps with little
# noise no more than this (Hang et al. 2023, arXiv 2303.09556),
_MOST_SNR = 5.0
# and steps that are nearly all noise this besides: they decide the colours.
_NOISY = 0.1


def train(
    accelerator: Accelerator,
    whitening: Whitening,
    text_encoder: Any,
    tokenizer: Any,
    *,
    seed: int,
    updates: int,
    batch: int,
) -> Any:
    """Trains a denoiser to tell latents and noise apart, from their caption.

    It predicts the velocity (Salimans and Ho 2022, arXiv 2202.00512). Where there is most noise, an
    error in a predicted noise would be 15 times as large in the latents, and guidance multiplies
    it once more.

    Args:
        accelerator: Knows the processes and the device.
        whitening: Makes the latents.
        text_encoder: Encodes the captions; it is not trained.
        tokenizer: Its tokenizer.
        seed: Of the weights, the scenes and the noise.
        updates: Number of updates.
        batch: Scenes an update.

    Returns:
        The UNet, on the CPU.
    """
    torch.manual_seed(seed)
    unet = architecture.unet()
    device = accelerator.device
    scheduler = architecture.scheduler()
    signal = scheduler.alphas_cumprod.to(device)
    snr = signal / (1 - signal)
    weights = (snr + _NOISY).clamp(max=_MOST_SNR) / (snr + 1)
    listener = text_encoder.to(device)

    def loss_of(model: nn.Module, random: Random, size: int) -> Tensor:
        scenes = batches.sample(random, size)
        texts = batches.captions(scenes, random)[0]
        clean = whitening(batches.pictures(scenes)).to(device)
        clean += NOISE * torch.randn_like(clean)
        with torch.no_grad():
            hidden = listener(batches.identifiers(tokenizer, texts).to(device)).last_hidden_state
        steps = torch.randint(len(signal), (size,), device=device)
        noise = torch.randn_like(clean)
        noisy = scheduler.add_noise(clean, noise, steps)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        found = model(noisy, steps, hidden).sample
        velocity = scheduler.get_velocity(clean, noise, steps)
        wrong = (found - velocity).square().mean((1, 2, 3))
        loss: Tensor = (wrong * weights[steps]).mean()
        return loss

    # What listens to the text learns faster.
    listening = [value for name, value in unet.named_parameters() if "attn2" in name]
    rest = [value for name, value in unet.named_parameters() if "attn2" not in name]
    trained = loop.train(
        accelerator,
        unet,
        [{"params": rest}, {"params": listening, "factor": 2.0}],
        loss_of,
        title="denoiser",
        seed=seed,
        updates=updates,
        batch=batch,
    )
    listener.cpu()
    return trained
