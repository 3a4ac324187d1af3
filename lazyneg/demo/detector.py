"""Tells what is in the embedded model's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from lazyneg.demo.scenes import FACTS, SIZE

FILE = Path(__file__).parent / "weights" / "detector.safetensors"


class Network(nn.Module):
    """A small convolutional network with one output for each fact."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 16, 32, 48)
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU(), nn.BatchNorm2d(after)]
        layers += [nn.Conv2d(48, 32, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(32 * (SIZE // 16) ** 2, len(FACTS)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [pictures, facts] of pictures [pictures, 3, SIZE, SIZE] in -1 to 1."""
        logits: Tensor = self.layers(functional.avg_pool2d(pictures, 2))
        return logits


class Detector:
    """The trained network.

    Attributes:
        names: What it looks for, the columns of its answer.
    """

    names = FACTS

    def __init__(self, file: Path = FILE) -> None:
        self.network = Network()
        self.network.load_state_dict(load_file(file))
        self.network.float().eval()

    def __call__(self, pictures: Sequence[Image]) -> npt.NDArray[np.float32]:
        """Looks at pictures.

        Args:
            pictures: Pictures of any size.

        Returns:
            How likely each fact is, from 0 to 1, as [pictures, names].
        """
        resized = [picture.convert("RGB").resize((SIZE, SIZE)) for picture in pictures]
        values = torch.from_numpy(np.stack([np.asarray(picture) for picture in resized]))
        with torch.inference_mode():
            logits = self.network(values.permute(0, 3, 1, 2).float() / 127.5 - 1)
        likely: npt.NDArray[np.float32] = logits.sigmoid().numpy()
        return likely
