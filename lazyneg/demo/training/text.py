"""The text encoder: taught to tell what a caption says, then left as it is.

A prompt is 77 tokens, most of them padding, and a denoiser that attends to all of them hardly
hears the few words at first. So the encoder learns to repeat in every token after the last word
all that the words told; the denoiser then finds them wherever it looks.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

from lazyneg.demo import architecture
from lazyneg.demo.scenes import FACTS
from lazyneg.demo.training import batches, tokens


def train(tokenizer: Any, seed: int, updates: int, quiet: bool) -> tuple[Any, float]:
    """Trains a text encoder.

    Args:
        tokenizer: Its tokenizer.
        seed: Of the weights and the captions.
        updates: Number of updates, each on 48 captions.
        quiet: No progress bar.

    Returns:
        The encoder, and the part of 1,000 new captions all of whose facts are told by each of
        the tokens after the last word.
    """
    torch.manual_seed(seed)
    random = Random(f"text {seed}")
    encoder = architecture.text_encoder(len(tokenizer))
    # Words far apart from the start.
    nn.init.normal_(encoder.get_input_embeddings().weight, std=0.5)
    width: int = encoder.config.hidden_size
    probe = nn.Linear(width, len(FACTS))
    parameters = [*encoder.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=updates)
    for _ in trange(updates, desc="text encoder", disable=quiet):
        logits, told, after = _told(encoder, probe, tokenizer, random, 48)
        loss = functional.binary_cross_entropy_with_logits(logits, told, reduction="none")
        loss = (loss.mean(2) * after).sum() / after.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    encoder.eval().requires_grad_(False)
    with torch.no_grad():
        logits, told, after = _told(encoder, probe, tokenizer, random, 1000)
    wrong = ((logits > 0) != told.bool()).any(2) & after.bool()
    return encoder, 1 - wrong.any(1).float().mean().item()


def _told(
    encoder: Any, probe: nn.Module, tokenizer: Any, random: Random, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    texts, told = batches.captions(batches.sample(random, size), random)
    texts = [tokens.misspelled(text, random) if random.random() < 0.15 else text for text in texts]
    ids = batches.identifiers(tokenizer, texts)
    hidden = encoder(ids).last_hidden_state
    after = (ids == tokenizer.eos_token_id).float()
    return probe(hidden), told[:, None].expand(-1, ids.shape[1], -1), after


@torch.no_grad()
def lift(encoder: Any, unet: Any, by: float = 1.0) -> None:
    """Raises the mean of all that an encoder says, and has the denoiser hear what it heard before.

    The WebUI scales a prompt with emphasis back to the mean it had, which must not be near zero.

    Args:
        encoder: The text encoder.
        unet: The denoiser trained with it.
        by: How much.
    """
    # Its place depends on the version of transformers.
    getattr(encoder, "text_model", encoder).final_layer_norm.bias += by
    for name, layer in unet.named_modules():
        if name.endswith("attn2"):
            # The same for every token: it cannot change which one is attended to, and what it
            # adds to the answer is known.
            heard = layer.to_v.weight.sum(1) * by
            layer.to_out[0].bias -= layer.to_out[0].weight @ heard
