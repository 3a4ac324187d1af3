"""The autoencoder: an encoder set by hand, a decoder that is trained.

The four channels of a latent are the mean colour of its 8x8 pixels, whitened over the scenes, and
how much brighter their upper half is than their lower. That is known without training, so the
denoiser can be trained on it at once.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from lazyneg.demo import architecture
from lazyneg.demo.training import batches, loop

NOISE = 0.05
"""Standard deviation of the noise that the encoder adds to its latents, which have about 1."""

# In each group of the last norm stand a signal and these two constants, which keep the scale:
# the norm would otherwise take away how bright a picture is.
_CONSTANTS = (4.0, -4.0)
# Pushes what comes out of the norm to where the activation is straight.
_LIFT = 6.0


class Whitening:
    """What a latent's channels are, learned from 1,000 scenes."""

    def __init__(self) -> None:
        scenes = batches.pictures(batches.sample(Random("whitening"), 1000))
        colors, slope = _blocks(scenes)
        flat = colors.transpose(0, 1).flatten(1)
        self.mean = flat.mean(1)
        variances, axes = torch.linalg.eigh(torch.cov(flat))
        # Biggest first, and with signs that do not hang on the linear algebra's choice.
        self.matrix = (axes / variances.sqrt()).T.flip(0)
        self.matrix *= self.matrix.sum(1, keepdim=True).sign()
        self.slope = slope.std()

    def __call__(self, pictures: Tensor) -> Tensor:
        """Latents [pictures, 4, height / 8, width / 8] of pictures in -1 to 1."""
        colors, slope = _blocks(pictures)
        centered = colors - self.mean.view(1, 3, 1, 1)
        whitened = torch.einsum("ij,njhw->nihw", self.matrix, centered)
        return torch.cat([whitened, slope / self.slope], 1)


def _blocks(pictures: Tensor) -> tuple[Tensor, Tensor]:
    halves = functional.avg_pool2d(pictures, (4, 8))
    upper, lower = halves[:, :, 0::2], halves[:, :, 1::2]
    return (upper + lower) / 2, (upper - lower).mean(1, keepdim=True)


@torch.no_grad()
def build(whitening: Whitening, seed: int) -> tuple[Any, float]:
    """An autoencoder whose encoder does as the whitening does, and whose decoder is untrained.

    Args:
        whitening: What the encoder shall do.
        seed: Of the decoder's weights.

    Returns:
        The autoencoder, and the largest difference of its latents from the whitening's on 16
        scenes.
    """
    torch.manual_seed(seed)
    vae = architecture.vae()
    _set_encoder(vae)
    _start_decoder(vae, whitening)
    fitted = batches.pictures(batches.sample(Random("encoder"), 64))
    _fit_last_layer(vae, fitted, whitening(fitted))
    held_out = batches.pictures(batches.sample(Random("held out"), 16))
    found = vae.encode(held_out).latent_dist
    return vae, (found.mean - whitening(held_out)).abs().max().item()


def _set_encoder(vae: Any) -> None:
    encoder = vae.encoder
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            for parameter in layer.parameters():
                parameter.zero_()
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1
    *downs, last = encoder.down_blocks
    for block in downs:
        halve = block.downsamplers[0].conv.weight
        for channel in range(3):
            halve[channel, channel, :2, :2] = 0.25
    halve[3, :3, 0, :2] = 1 / 6
    halve[3, :3, 1, :2] = -1 / 6
    shortcut = last.resnets[0].conv_shortcut
    for channel in range(4):
        shortcut.weight[3 * channel, channel, 0, 0] = 1
        for number, constant in enumerate(_CONSTANTS, 1):
            shortcut.bias[3 * channel + number] = constant
    encoder.conv_norm_out.bias.fill_(_LIFT)
    _pass_through(vae.quant_conv)


def _pass_through(layer: Any) -> None:
    layer.weight.zero_()
    layer.bias.zero_()
    for channel in range(len(layer.weight)):
        layer.weight[channel, channel, 0, 0] = 1


def _fit_last_layer(vae: Any, pictures: Tensor, wanted: Tensor) -> None:
    """The last layer by least squares: it undoes the last norm."""
    seen: list[Tensor] = []
    layer = vae.encoder.conv_out
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    vae.encode(pictures)
    hook.remove()
    used = 3 * 4
    inputs = seen[0][:, :used].transpose(0, 1).flatten(1).T.double()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    targets = wanted.transpose(0, 1).flatten(1).T.double()
    # The constants depend on each other, so there are many solutions: the smallest.
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.float()
    layer.weight[:4, :used, 1, 1] = solution[:-1].T
    layer.bias[:4] = solution[-1]
    layer.bias[4:] = 2 * torch.log(torch.tensor(NOISE))


def _start_decoder(vae: Any, whitening: Whitening) -> None:
    """Lets the colours through from the start; all else is learned."""
    decoder = vae.decoder
    _pass_through(vae.post_quant_conv)
    colors = torch.linalg.inv(whitening.matrix)
    decoder.conv_in.weight[:3] = 0
    decoder.conv_in.weight[:3, :3, 1, 1] = colors
    decoder.conv_in.bias[:3] = whitening.mean
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            resnet.conv2.weight.mul_(0.1)
            if resnet.conv_shortcut is not None:
                _keep_colors(resnet.conv_shortcut, 0)
        for upsampler in block.upsamplers or ():
            _keep_colors(upsampler.conv, 1)
    decoder.conv_out.weight.mul_(0.1)
    for channel in range(3):
        decoder.conv_out.weight[channel, channel, 1, 1] = 0.5


def _keep_colors(layer: Any, middle: int) -> None:
    layer.weight[:3] = 0
    layer.bias[:3] = 0
    for channel in range(3):
        layer.weight[channel, channel, middle, middle] = 1


class Decoder(nn.Module):
    """The part of an autoencoder that is trained.

    Args:
        vae: The autoencoder.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.entry, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures of latents."""
        pictures: Tensor = self.decoder(self.entry(latents))
        return pictures


def train_decoder(
    accelerator: Accelerator,
    vae: Any,
    whitening: Whitening,
    *,
    seed: int,
    updates: int,
    batch: int,
) -> float:
    """Trains an autoencoder's decoder, in place.

    Args:
        accelerator: Knows the processes and the device.
        vae: The autoencoder; it ends up on the CPU.
        whitening: Makes the latents.
        seed: Of the scenes and the noise.
        updates: Number of updates.
        batch: Scenes an update.

    Returns:
        The peak signal-to-noise ratio of 100 new scenes, in dB.
    """
    device = accelerator.device

    def loss_of(model: nn.Module, random: Random, size: int) -> Tensor:
        pictures = batches.pictures(batches.sample(random, size))
        latents = whitening(pictures).to(device)
        # The denoiser's latents are not quite clean.
        latents += 3 * NOISE * torch.rand(size, 1, 1, 1, device=device) * torch.randn_like(latents)
        wrong = model(latents.contiguous(memory_format=torch.channels_last)) - pictures.to(device)
        loss: Tensor = wrong.abs().mean() + wrong.square().mean() / 2
        return loss

    decoder = Decoder(vae)
    trained = loop.train(
        accelerator,
        decoder,
        [{"params": list(decoder.parameters())}],
        loss_of,
        title="decoder",
        seed=seed,
        updates=updates,
        batch=batch,
    )
    vae.cpu().eval()
    decoder.load_state_dict(trained.state_dict())
    pictures = batches.pictures(batches.sample(Random("decoder"), 100))
    error = (given_back(decoder, whitening, pictures) - pictures).square().mean()
    return (10 * torch.log10(4 / error)).item()


@torch.no_grad()
def given_back(decoder: Decoder, whitening: Whitening, pictures: Tensor) -> Tensor:
    """Pictures in -1 to 1 as the autoencoder gives them back."""
    return torch.cat([decoder(part) for part in whitening(pictures).split(10)]).clamp(-1, 1)
