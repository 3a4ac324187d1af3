"""Where, and while, the negative prompt acts: read off what it changes in the model's output.

In each position of the latent the negative prompt is a push, ``d = negative - empty``, the
difference of the model's outputs for the negative and for the empty prompt at the same latent.
Where nothing is to be removed it can only do harm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

ON = 0.35
"""Evidence above which the negative prompt acts again in a picture."""
OFF = 0.2
"""Evidence below which it does not act any longer."""
PUSH = 1.5
"""How many times as strongly it acts where it acts in a part of the picture only."""


class Guidance:
    """The choice for one picture in one pass; it keeps what it saw of it.

    All outputs are those of one denoiser call for one picture, without the batch's dimension. They
    may be of any kind (noise, velocity, denoised latent): nothing depends on their scale.

    Args:
        area: Percent of the positions of the latent in which the negative prompt acts, 1 to 100:
            those where it changes most, as SEGA chooses where its edits act (arXiv 2301.12247).
        adaptive: Whether it acts only while the prompt's own push contains the negative's
            direction: by the projection ``<a, d> / <d, d>`` that CRG (arXiv 2606.29801) asks for
            its sign, on the mean of the calls so far.

    Attributes:
        acted: Whether the negative prompt acted in the last call.
        over: Whether it never acts again in this pass, so that nothing more has to be run for it.
    """

    def __init__(self, area: int, adaptive: bool) -> None:
        self.area = area
        self.adaptive = adaptive
        self.acted = True
        self.over = False
        self._evidence = 0.0
        self._calls = 0

    def uncond(self, cond: Tensor, empty: Tensor, negative: Tensor, channels: int) -> Tensor:
        """The unconditional output to guide by.

        Args:
            cond: Output for the prompt, of any shape in which ``channels`` is the dimension of the
                channels and all others are positions, such as ``[C, H, W]``, ``[C, F, H, W]`` or
                packed tokens ``[N, C]``.
            empty: Output for the empty prompt, or for the early one.
            negative: Output for the negative prompt.
            channels: Dimension of the channels.

        Returns:
            Output of the same shape: ``empty`` itself where the negative prompt does not act.
        """
        push = negative.float() - empty.float()
        self.acted = self._acts(cond.float() - empty.float(), push)
        if not self.acted:
            return empty
        if self.area == 100:
            return negative
        chosen = strongest(push, self.area, channels)
        return torch.where(chosen, (empty.float() + PUSH * push).to(empty), empty)

    def _acts(self, asked: Tensor, push: Tensor) -> bool:
        norm = (push * push).sum().item()
        if not norm:
            return False
        if not self.adaptive:
            return True
        self._evidence += (asked * push).sum().item() / norm
        self._calls += 1
        return self._evidence / self._calls > (OFF if self.acted else ON)


def strongest(push: Tensor, area: int, channels: int) -> Tensor:
    """The positions where a push is strongest, looked at a little blurred.

    Args:
        push: Of any shape, see :meth:`Guidance.uncond`.
        area: Percent of the positions.
        channels: Dimension of the channels.

    Returns:
        Booleans in the shape of ``push`` with one channel.
    """
    strength = push.abs().sum(channels)
    # Packed tokens have no neighbours that could be known.
    if strength.ndim > 1:
        strength = _blurred(strength)
    count = math.ceil(strength.numel() * area / 100)
    least = strength.flatten().topk(count).values[-1]
    return (strength >= least).unsqueeze(channels)


def _blurred(values: Tensor) -> Tensor:
    """Gaussian blur over the last two dimensions, of a standard deviation of one position."""
    kernel = torch.exp(-(torch.arange(-2, 3, device=values.device, dtype=values.dtype) ** 2) / 2)
    kernel /= kernel.sum()
    planes = values.reshape(-1, 1, *values.shape[-2:])
    padded = functional.pad(planes, (2, 2, 2, 2), mode="replicate")
    across = functional.conv2d(padded, kernel.view(1, 1, 1, 5))
    return functional.conv2d(across, kernel.view(1, 1, 5, 1)).reshape(values.shape)
