"""Where, and while, the negative prompt acts: read off the model's outputs.

At one and the same latent the outputs for the empty prompt, the prompt and the negative prompt are
three points. The step from the empty one to the prompt's is what the prompt asks for; the step to
the negative's, ``d = negative - empty``, is what the negative prompt would take away, and where
nothing is to be removed it can only do harm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

AWAKE = 0.47
"""Presence above which the negative prompt begins to act in a picture: its object is coming."""
ASLEEP = 0.2
"""Presence at or below which it does not act, however often it did before: its object is gone."""
OVER = 0.09
"""Presence below which it does not act any more: its object is gone for good, or never came."""
PUSH = 1.5
"""How strongly an adaptive negative prompt acts in a part of the picture, always-on's being 1."""


class Guidance:
    """The choice for one picture in one pass; it keeps what it saw of it.

    All outputs are those of one denoiser call for one picture, without the batch's dimension. They
    may be of any kind (noise, velocity, denoised latent), as only ratios of differences within a
    call count.

    Args:
        area: Percent of the positions of the latent in which the negative prompt acts, 1 to 100:
            those where it changes most, as SEGA chooses where its edits act (arXiv 2301.12247).
        adaptive: Whether it acts only from the first call in which its object is coming, see
            :func:`presence`, and then in those in which it is not gone.

    Attributes:
        acted: Whether the negative prompt acted in the last call.
        over: Whether it never acts again in this pass, so that nothing more has to be run for it.
    """

    def __init__(self, area: int, adaptive: bool) -> None:
        self.area = area
        self.adaptive = adaptive
        self.acted = False
        self.over = False
        self._awake = False

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
            Output of the same shape: ``empty`` itself if the negative prompt does not act,
            ``negative`` itself if it acts everywhere, and else, at the chosen positions,
            ``empty + push * d``, where ``push`` is 1, or :data:`PUSH` if adaptive.
        """
        d = negative.float() - empty.float()
        self.acted = self._acts(cond.float() - empty.float(), d) and bool(d.any())
        if not self.acted:
            return empty
        if self.area == 100:
            return negative
        push = PUSH if self.adaptive else 1.0
        chosen = strongest(d, self.area, channels)
        return torch.where(chosen, (empty.float() + push * d).to(empty), empty)

    def _acts(self, a: Tensor, d: Tensor) -> bool:
        if not self.adaptive:
            return True
        present = presence(a, d)
        self._awake |= present > AWAKE
        self.over = present < OVER
        return self._awake and present > ASLEEP


def presence(a: Tensor, d: Tensor) -> float:
    """How much of what the negative prompt names the prompt is drawing at this latent.

    The two distances whose difference CRG (arXiv 2606.29801) takes, ``|a|`` from the empty
    prompt's output to the prompt's and ``|a - d|`` from the negative's to the prompt's, as
    ``|a| / (|a| + |a - d|)``. While the latent holds none of it, ``d`` is large beside ``a``.
    Once it holds it, the negative prompt has nothing to add and ``d`` is small beside ``a``.

    Args:
        a: What the prompt asks for, prompt - empty, of any shape.
        d: What the negative prompt changes, negative - empty, of the same shape.

    Returns:
        0 to 1; above ½ the prompt's output is nearer to the negative's than to the empty one's.
    """
    asked, apart = a.norm().item(), (a - d).norm().item()
    # Both are 0 only if all three outputs are the same.
    return asked / (asked + apart) if asked else 0.0


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
