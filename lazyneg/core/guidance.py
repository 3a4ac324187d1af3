"""Where, and while, the negative prompt acts: read off the model's outputs.

At one and the same latent the outputs for the empty prompt, the prompt and the negative prompt are
three points. The step from the empty one to the prompt's is what the prompt asks for; the step to
the negative's, ``d = negative - empty``, is what the negative prompt would take away, and where
nothing is to be removed it can only do harm.
"""

from __future__ import annotations

import math
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

SPARED = 0.05
"""Evidence up to which an adaptive negative prompt does not act: its object is gone, or is not
coming."""
GAIN = 4.0
"""How strongly it acts for each 1 of the evidence above that, always-on's strength being 1."""
STRONGEST = 3.0
"""How strongly it acts at most in a part of the picture. Everywhere it is 1."""


class Guidance:
    """The choice for one picture in one pass; it keeps what it saw of it.

    All outputs are those of one denoiser call for one picture, without the batch's dimension. They
    may be of any kind (noise, velocity, denoised latent), as only ratios of differences within a
    call count.

    Args:
        area: Percent of the positions of the latent in which the negative prompt acts, 1 to 100:
            those where it changes most, as SEGA chooses where its edits act (arXiv 2301.12247).
        adaptive: Whether it acts only while, and as strongly as, its object is in the picture. The
            evidence is the mean over the calls so far of what :func:`contained` tells.

    Attributes:
        acted: Whether the negative prompt acted in the last call.
        over: Whether it never acts again in this pass, so that nothing more has to be run for it.
    """

    def __init__(self, area: int, adaptive: bool) -> None:
        self.area = area
        self.adaptive = adaptive
        self.acted = False
        self.over = False
        self._seen: list[float] = []

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
            ``negative`` itself if it acts everywhere and as strongly as always-on, and else
            ``empty + push * d`` at the chosen positions and ``empty`` at the others. ``push`` is 1,
            or if adaptive ``GAIN * (evidence - SPARED)``, at most 1 everywhere and
            :data:`STRONGEST` in a part of the picture.
        """
        d, push, most = negative.float() - empty.float(), 1.0, 1.0
        self.acted = False
        if self.over or not d.any():
            return empty
        if self.area < 100:
            d, most = torch.where(strongest(d, self.area, channels), d, 0), STRONGEST
        if self.adaptive:
            self._seen.append(contained(cond.float() - empty.float(), d))
            push = min(GAIN * (fmean(self._seen) - SPARED), most)
        self.acted = push > 0
        self.over = not self.acted
        if self.over:
            return empty
        if push == most == 1:
            return negative
        return (empty.float() + push * d).to(empty)


def contained(a: Tensor, d: Tensor) -> float:
    """How much of the negative prompt's push the prompt's own push contains.

    The projection ``sum(a * d) / sum(d * d)``: positive while the prompt draws what the negative
    prompt names, 1 where it draws it as strongly as the negative prompt would by itself, and about
    0 once it is gone or if it never came. CRG's difference of norms (arXiv 2606.29801) is positive
    where this is above 1/2.

    Args:
        a: What the prompt asks for, prompt - empty, of any shape.
        d: What the negative prompt changes, negative - empty, of the same shape, and 0 where it
            shall not be looked at; not 0 everywhere.
    """
    return (torch.sum(a * d) / torch.sum(d * d)).item()


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
