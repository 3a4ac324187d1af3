"""The sampling pass under way, as the host's processing object tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modules import sd_samplers


@dataclass(frozen=True)
class Pass:
    """What a pass is made with, where the two kinds of pass differ.

    Attributes:
        hires: Whether it is the hires pass.
        size: Width and height of its pictures.
        networks: Its extra networks, as the host has parsed them.
        hires_steps: Denoiser calls that the host plans for a hires pass, ``None`` in the first.
        distilled: Its distilled guidance, ``None`` where the host knows none.
    """

    hires: bool
    size: tuple[int, int]
    networks: Any
    hires_steps: int | None
    distilled: float | None

    @classmethod
    def of(cls, p: Any) -> Pass:
        """The pass that ``p`` makes now."""
        if not is_hires_pass(p):
            distilled = getattr(p, "distilled_cfg_scale", None)
            return cls(False, (p.width, p.height), p.extra_network_data, None, distilled)
        steps = p.hr_second_pass_steps or p.steps
        config = sd_samplers.find_sampler_config(p.hr_sampler_name or p.sampler_name)
        return cls(
            True,
            (p.hr_upscale_to_x, p.hr_upscale_to_y),
            p.hr_extra_network_data,
            config.total_steps(steps) if config else steps,
            getattr(p, "hr_distilled_cfg", None),
        )


def is_hires_pass(p: Any) -> bool:
    """Whether the pass that ``p`` makes now is its hires pass."""
    return bool(getattr(p, "is_hr_pass", False))


def own_uncond(p: Any) -> Any:
    """The host's own unconditional schedule for the pass that ``p`` makes now.

    It is another object when the host has encoded its texts again, as most do for a refiner. Forge
    Neo keeps those of the model before.
    """
    return p.get_conds()[1]
