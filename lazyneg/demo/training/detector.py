"""The detector's training."""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

from lazyneg.demo.detector import Network
from lazyneg.demo.scenes import FACTS, Scene
from lazyneg.demo.training import batches
from lazyneg.demo.training.autoencoder import Decoder, Whitening, given_back

# So few, as decoding takes longer than drawing.
_DECODED = 400
_BATCH = 32


def train(decoder: Decoder, whitening: Whitening, file: Path, *, updates: int) -> dict[str, float]:
    """Trains a detector on scenes, as drawn and as the autoencoder gives them back.

    Args:
        decoder: Gives pictures back.
        whitening: Makes their latents.
        file: Where to write the weights.
        updates: Number of updates.

    Returns:
        For each fact, the part of 1,000 new scenes where it is right.
    """
    torch.manual_seed(0)
    random = Random("detector")
    network = Network().train()
    seen = batches.sample(random, _DECODED)
    decoded = given_back(decoder, whitening, batches.pictures(seen))
    decoded_facts = _facts(seen)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=updates)
    for update in trange(updates, desc="detector"):
        scenes = batches.sample(random, _BATCH)
        drawn = batches.pictures(scenes)
        # The model's pictures are neither sharp nor clean.
        if update % 2:
            drawn = functional.avg_pool2d(functional.pad(drawn, (2, 2, 2, 2), "replicate"), 5, 1)
        chosen = torch.randint(_DECODED, (_BATCH // 2,))
        pictures = torch.cat([drawn, decoded[chosen]])
        pictures += 0.15 * torch.rand(len(pictures), 1, 1, 1) * torch.randn_like(pictures)
        wanted = torch.cat([_facts(scenes), decoded_facts[chosen]])
        loss = functional.binary_cross_entropy_with_logits(network(pictures), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval().half()
    save_file(network.state_dict(), file)
    return _accuracy(network.float(), Random("new scenes"))


def _facts(scenes: list[Scene]) -> Tensor:
    return batches.facts([scene.facts() for scene in scenes])


def _accuracy(network: nn.Module, random: Random) -> dict[str, float]:
    scenes = batches.sample(random, 1000)
    with torch.no_grad():
        right = (network(batches.pictures(scenes)) > 0) == _facts(scenes).bool()
    return dict(zip(FACTS, right.float().mean(0).tolist()))
