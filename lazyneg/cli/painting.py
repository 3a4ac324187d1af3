"""The pictures of a comparison."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

import lazyneg
from lazyneg.cli import models
from lazyneg.cli.infotext import Infotext
from lazyneg.cli.models import ModelError
from lazyneg.diffusers.errors import DelayError
from lazyneg.settings import Settings


class Painter:
    """A loaded pipeline that paints what infotexts say.

    Args:
        model: A checkpoint file or a folder in diffusers' layout.
        config: Folder with the configuration for a checkpoint file, if not to be fetched.
        embeddings: Files of textual inversions; their names are the words.
        device: Where to paint; the fastest device if not given.
        dtype: Name of PyTorch's type; see :func:`lazyneg.cli.models.load`.

    Raises:
        ModelError: If there is no pipeline that takes a negative prompt and paints pictures.
    """

    def __init__(
        self,
        model: Path,
        config: Path | None,
        embeddings: Iterable[Path],
        device: str | None,
        dtype: str | None,
    ) -> None:
        self.pipe = models.load(model, config, device or models.default_device(), dtype)
        try:
            # Refuses what takes no negative prompt.
            lazyneg.remove(lazyneg.apply(self.pipe))
        except TypeError as error:
            raise ModelError(f"{model}: {error}") from error
        models.load_embeddings(self.pipe, embeddings)
        self.about = {"Model": model.stem if model.is_file() else model.name}
        if model.is_file():
            self.about = {"Model hash": models.short_hash(model), **self.about}
        self.scheduler = self.pipe.scheduler
        self.parameters = inspect.signature(type(self.pipe).__call__).parameters

    def paint(self, job: Infotext, settings: Settings, title: str) -> tuple[Image, Infotext]:
        """Paints one picture.

        Args:
            job: The prompts and the WebUI's parameters; those not needed are left alone.
            settings: When the negative prompt acts.
            title: What the progress bar says.

        Returns:
            The picture, and the infotext that it is made again with.

        Raises:
            ModelError: If the pipeline cannot paint it.
        """
        wanted = job.parameters
        self.pipe.scheduler = self.scheduler
        if "Sampler" in wanted:
            models.set_sampler(self.pipe, wanted["Sampler"], wanted.get("Schedule type", ""))
        self.pipe.set_progress_bar_config(desc=title)
        try:
            with self._delayed(settings):
                result = self.pipe(**self._arguments(job))
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            raise ModelError(
                f"out of memory on {self.pipe.device}: try a smaller --width and --height, "
                "--dtype float16 or --device cpu"
            ) from error
        except (DelayError, ValueError) as error:
            raise ModelError(str(error)) from error
        if not hasattr(result, "images"):
            raise ModelError(f"{type(self.pipe).__name__} paints no pictures")
        picture: Image = result.images[0]
        made = {
            "Steps": wanted["Steps"],
            **models.sampler_of(self.pipe),
            "CFG scale": wanted["CFG scale"],
            "Seed": wanted["Seed"],
            "Size": f"{picture.width}x{picture.height}",
            **self.about,
            **({"Clip skip": wanted["Clip skip"]} if "Clip skip" in wanted else {}),
            **settings.infotext(),
        }
        return picture, Infotext(job.prompt, job.negative, made)

    def _delayed(self, settings: Settings) -> contextlib.AbstractContextManager[Any]:
        if not settings.enabled:
            return contextlib.nullcontext()
        return lazyneg.lazy_negative(
            self.pipe,
            settings.critical_step,
            settings.unit,
            settings.stop_step,
            settings.early_prompt,
        )

    def _arguments(self, job: Infotext) -> dict[str, Any]:
        wanted = job.parameters
        scale = "true_cfg_scale" if "true_cfg_scale" in self.parameters else "guidance_scale"
        arguments: dict[str, Any] = {
            "prompt": job.prompt,
            "negative_prompt": job.negative,
            "num_inference_steps": int(wanted["Steps"]),
            scale: float(wanted["CFG scale"]),
            "generator": torch.Generator("cpu").manual_seed(int(wanted["Seed"])),
        }
        if "Size" in wanted:
            width, height = wanted["Size"].split("x")
            arguments |= {"width": int(width), "height": int(height)}
        # The WebUI counts the last layer, diffusers those that are left out.
        if (skipped := int(wanted.get("Clip skip", 1)) - 1) and "clip_skip" in self.parameters:
            arguments["clip_skip"] = skipped
        return arguments
