"""Trains the embedded model: ``torchrun --nproc_per_node 2 -m lazyneg.demo.training``.

One process for each core, or for each GPU; as many as divide a batch of 16.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import Accelerator

from lazyneg.demo import CHECKPOINT, checkpoint
from lazyneg.demo.detector import FILE
from lazyneg.demo.training import autoencoder, denoiser, detector, text, tokens
from lazyneg.demo.training.autoencoder import Decoder, Whitening

_BATCH = 16


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = CHECKPOINT.parent,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    shortened: Annotated[
        int,
        typer.Option(
            min=1, max=900, help="Makes all trainings so many times shorter, to try them."
        ),
    ] = 1,
) -> None:
    """Trains the embedded model from nothing."""
    # Without being told, it does not join processes that have no GPU.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if _BATCH % accelerator.num_processes:
        raise typer.BadParameter(
            f"{accelerator.num_processes} processes; allowed: a number that divides {_BATCH}"
        )
    quiet = not accelerator.is_main_process
    # The old model stays whole until the new one is.
    made = folder.with_name(f".{folder.name}.new")
    if accelerator.is_main_process:
        shutil.rmtree(made, ignore_errors=True)
        tokens.build(made / "config" / "tokenizer")
    accelerator.wait_for_everyone()
    tokenizer = tokens.load(made / "config" / "tokenizer")
    whitening = Whitening()
    # Every process trains the same one.
    encoder, understood = text.train(tokenizer, seed, 1200 // shortened, quiet)
    unet = denoiser.train(
        accelerator,
        whitening,
        encoder,
        tokenizer,
        seed=seed,
        updates=8000 // shortened,
        batch=_BATCH,
    )
    text.lift(encoder, unet)
    vae, encoder_error = autoencoder.build(whitening, seed)
    psnr = autoencoder.train_decoder(
        accelerator, vae, whitening, seed=seed, updates=900 // shortened, batch=_BATCH
    )
    if not accelerator.is_main_process:
        return
    pipe = checkpoint.assemble(unet, vae, encoder, tokenizer)
    checkpoint.save(pipe, made, CHECKPOINT.stem)
    accuracy = detector.train(
        Decoder(vae),
        whitening,
        made / FILE.name,
        updates=1500 // shortened,
    )
    report = {
        "seed": seed,
        "captions understood": understood,
        "largest error of the encoder": encoder_error,
        "decoder's PSNR in dB": psnr,
        "detector's accuracy on new drawings": accuracy,
    }
    (made / "training.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    shutil.rmtree(made)


if __name__ == "__main__":
    typer.run(main)
