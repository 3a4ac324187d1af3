"""What the two long trainings have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import trange

# Constant after a short warm-up, then falling to nothing over the last half.
_RATE = 1e-3


def train(
    accelerator: Accelerator,
    model: nn.Module,
    groups: Iterable[dict[str, Any]],
    loss_of: Callable[[nn.Module, Random, int], Tensor],
    *,
    title: str,
    seed: int,
    updates: int,
    batch: int,
) -> nn.Module:
    """Trains a model on fresh scenes, shared among the processes.

    Args:
        accelerator: Knows the processes and the device.
        model: What to train.
        groups: The optimizer's groups of parameters.
        loss_of: Gives the loss of a model on a number of scenes drawn by lot.
        title: What the progress bar says.
        seed: Of the scenes and the noise; each process draws its own.
        updates: Number of updates.
        batch: Scenes an update, of all processes together.

    Returns:
        A copy of the model with the weights averaged over the last updates, on the CPU.
    """
    random = Random(f"{title} {seed} {accelerator.process_index}")
    torch.manual_seed(random.getrandbits(32))
    torch.nn.utils.convert_conv2d_weight_memory_format(
        model.to(accelerator.device).train(), torch.channels_last
    )
    decay = min(0.999, updates / (updates + 50))
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    optimizer = torch.optim.AdamW(groups, lr=_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    size = batch // accelerator.num_processes
    quiet = not accelerator.is_main_process
    smooth = float("nan")
    with trange(updates, desc=title, disable=quiet, mininterval=5) as bar:
        for update in bar:
            left = min(1, 2 * (1 - update / updates)) * min(1, (update + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = _RATE * left * group.get("factor", 1.0)
            loss = loss_of(wrapped, random, size)
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            value = loss.item()
            smooth = value if update == 0 else 0.99 * smooth + 0.01 * value
            bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
    averaged: nn.Module = average.module.cpu().eval()
    return averaged
