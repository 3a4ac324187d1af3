"""A small text-to-image model to try a delay on, without a checkpoint and without a network.

It draws girls, boys and cats with and without glasses, hats, pizza and balloons. It is for
teaching and testing, and no evidence about Stable Diffusion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHECKPOINT = Path(__file__).parent / "weights" / "lazyneg-demo.safetensors"
"""The weights, in the layout of the first Stable Diffusion."""

CONFIG = CHECKPOINT.parent / "config"
"""Their configuration for diffusers, and the tokenizer."""


def pipeline() -> Any:
    """The embedded model, as a ``StableDiffusionPipeline`` in single precision on the CPU."""
    from lazyneg.painting import models

    return models.load(CHECKPOINT, CONFIG, "cpu", "float32")
