"""Painting what infotexts say."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL.Image import Image

import lazyneg
from lazyneg.core.settings import VERSION_KEY, Settings
from lazyneg.diffusers.blank import Early
from lazyneg.diffusers.delay import delayed_call
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.sharing import Tape
from lazyneg.diffusers.standins import plain_class
from lazyneg.painting import models
from lazyneg.painting.infotext import Infotext
from lazyneg.painting.models import ModelError


class Painter:
    """A loaded pipeline that paints what infotexts say.

    Args:
        model: A checkpoint file or a folder in diffusers' layout.
        config: Folder with the configuration for a checkpoint file, if not to be fetched.
        embeddings: Files of textual inversions; their names are the words.
        device: Where to paint; the fastest device if not given.
        dtype: Name of PyTorch's type; see :func:`lazyneg.painting.models.load`.

    Raises:
        ModelError: If there is no pipeline that takes a negative prompt and paints pictures.
    """

    def __init__(
        self,
        model: Path,
        config: Path | None,
        embeddings: Sequence[Path],
        device: str | None,
        dtype: str | None,
    ) -> None:
        device = device or models.default_device()
        self.pipe = models.load(model, config, device, dtype)
        try:
            # Refuses what takes no negative prompt.
            lazyneg.remove(lazyneg.apply(self.pipe))
        except TypeError as error:
            raise ModelError(f"{model}: {error}") from error
        models.load_embeddings(self.pipe, embeddings)
        self.about = {"Model": model.stem if model.is_file() else model.name}
        if model.is_file():
            self.about = {"Model hash": models.short_hash(model), **self.about}
        self.files = {
            "Model": model,
            **({"Config": config} if config else {}),
            **{f"Embedding {path.stem}": path for path in embeddings},
        }
        self.scheduler = self.pipe.scheduler
        self.parameters = inspect.signature(type(self.pipe).__call__).parameters
        self._tape: Tape | None = None

    def paint(self, job: Infotext, settings: Settings, title: str) -> tuple[Image, Infotext]:
        """Paints one picture; see :meth:`paint_batch`.

        Args:
            job: The prompts and the WebUI's parameters; those not needed are left alone.
            settings: When the negative prompt acts.
            title: What the progress bar says.

        Returns:
            The picture, and the infotext that it is made again with.
        """
        self.pipe.set_progress_bar_config(desc=title)
        return self.paint_batch(job, [int(job.parameters["Seed"])], settings)[0]

    def paint_batch(
        self,
        job: Infotext,
        seeds: Sequence[int],
        settings: Settings,
        acted: set[int] | None = None,
    ) -> list[tuple[Image, Infotext]]:
        """Paints a batch of pictures. Each has the random numbers of its own seed only.

        Args:
            job: The prompts and the WebUI's parameters; those not needed are left alone.
            seeds: The seed of each picture, in place of the one in ``job``.
            settings: When the negative prompt acts.
            acted: Gets the steps in which an adaptive one acted in any picture.

        Returns:
            Each picture, and the infotext that it is made again with.

        Raises:
            ModelError: If the pipeline cannot paint it.
        """
        wanted = job.parameters
        self._set_scheduler(wanted)
        if hasattr(self.pipe.scheduler, "noise_sampler_seed"):
            # Its noise does not come from the pipeline's generators.
            self.pipe.scheduler.noise_sampler_seed = list(seeds)
        iterations: set[int] = set()
        try:
            result = self._called(
                self.of_the_loop(settings, wanted), self.arguments(job, seeds), iterations
            )
        except (DelayError, IndexError, ValueError) as error:
            raise ModelError(str(error)) from error
        except (MemoryError, RuntimeError) as error:
            full = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
            # On the CPU PyTorch has no error of its own for it.
            if not full and "DefaultCPUAllocator" not in str(error):
                raise
            batch = ", a smaller --batch-size" if len(seeds) > 1 else ""
            raise ModelError(
                f"out of memory on {self.pipe.device}: try a smaller --width and --height{batch}, "
                "--dtype float16 or --device cpu"
            ) from error
        if not hasattr(result, "images"):
            raise ModelError(f"{type(self.pipe).__name__} paints no pictures")
        if acted is not None:
            acted |= {step // models.evaluations(self.pipe) for step in iterations}
        sampler = models.sampler_of(self.pipe, int(wanted["Steps"]))
        return [
            (picture, self._infotext(job, sampler, seed, picture, settings))
            for seed, picture in zip(seeds, result.images, strict=True)
        ]

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """What is painted within this context computes no step that the painting before it has.

        The pictures are the same. Meanwhile the outputs of the denoiser for one batch are kept, as
        large as its latents in all steps, but twice for guidance.
        """
        self._tape = Tape()
        try:
            yield
        finally:
            self._tape = None

    def made_with(self) -> dict[str, str]:
        """All besides a request that makes a difference to its picture."""
        hashes = {
            key: models.short_hash(path)
            for name, path in self.files.items()
            if (key := f"{name} hash") not in self.about
        }
        return {
            **hashes,
            **self.about,
            "Device": self.pipe.device.type,
            "Precision": str(self.pipe.dtype).removeprefix("torch."),
            "PyTorch": torch.__version__,
            "diffusers": diffusers.__version__,
        }

    def steps(self, wanted: Mapping[str, str]) -> int:
        """Steps of the sampler: what the critical step is counted in, as in the WebUI.

        Both evaluations of a second-order step are one. PLMS has a step more than asked for.

        Args:
            wanted: The WebUI's parameters.

        Raises:
            ModelError: If the sampler is not known, or cannot make so many steps.
        """
        return math.ceil(self.iterations(wanted) / models.evaluations(self.pipe))

    def iterations(self, wanted: Mapping[str, str]) -> int:
        """Iterations of the pipeline's loop.

        Args:
            wanted: The WebUI's parameters.

        Raises:
            ModelError: If the sampler is not known, or cannot make so many steps.
        """
        self._set_scheduler(wanted)
        steps = int(wanted["Steps"])
        with_steps = copy.deepcopy(self.pipe.scheduler)
        if with_steps.config.get("use_dynamic_shifting"):
            # Its schedule depends on the size of the picture, its length does not.
            return steps
        try:
            with_steps.set_timesteps(steps)
        except ValueError as error:
            raise ModelError(str(error)) from error
        return len(with_steps.timesteps)

    def _set_scheduler(self, wanted: Mapping[str, str]) -> None:
        self.pipe.scheduler = self.scheduler
        models.set_sampler(
            self.pipe,
            wanted.get("Sampler", ""),
            wanted.get("Schedule type", ""),
            int(wanted["Steps"]),
        )

    def _infotext(
        self,
        job: Infotext,
        sampler: Mapping[str, str],
        seed: int,
        picture: Image,
        settings: Settings,
    ) -> Infotext:
        wanted = job.parameters
        made = {
            "Steps": wanted["Steps"],
            **sampler,
            "CFG scale": wanted["CFG scale"],
            "Seed": str(seed),
            "Size": f"{picture.width}x{picture.height}",
            **self.about,
            **({"Clip skip": wanted["Clip skip"]} if "Clip skip" in wanted else {}),
            **settings.infotext(),
            **({VERSION_KEY: lazyneg.__version__} if settings.enabled else {}),
        }
        return Infotext(job.prompt, job.negative, made)

    def _called(self, settings: Settings, arguments: dict[str, Any], acted: set[int]) -> Any:
        if not settings.enabled and self._tape is None:
            # With whatever is applied to the pipeline.
            return self.pipe(**arguments)
        plain = plain_class(self.pipe)
        early = Early(settings.early_prompt, {})
        return delayed_call(self.pipe, plain, settings, early, (), arguments, self._tape, acted)

    def of_the_loop(self, settings: Settings, wanted: Mapping[str, str]) -> Settings:
        """Settings that count iterations of the pipeline's loop, not steps of the sampler.

        Args:
            settings: They count steps.
            wanted: The WebUI's parameters that are painted with at the moment.
        """
        iterations = models.evaluations(self.pipe)
        if not settings.enabled or iterations == 1:
            return settings
        window = settings.window(int(wanted["Steps"]))
        begin, stop = window.critical * iterations, (window.stop or 0) * iterations
        if window.stop is not None and window.stop <= window.critical:
            begin, stop = window.steps * iterations, 0
        return dataclasses.replace(settings, critical_step=begin, unit="steps", stop_step=stop)

    def arguments(self, job: Infotext, seeds: Sequence[int]) -> dict[str, Any]:
        """What the pipeline is called with; see :meth:`paint_batch`."""
        wanted = job.parameters
        scale = "true_cfg_scale" if "true_cfg_scale" in self.parameters else "guidance_scale"
        arguments: dict[str, Any] = {
            "prompt": [job.prompt] * len(seeds),
            "negative_prompt": [job.negative] * len(seeds),
            "num_inference_steps": int(wanted["Steps"]),
            scale: float(wanted["CFG scale"]),
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        }
        if "Size" in wanted:
            width, height = wanted["Size"].split("x")
            arguments |= {"width": int(width), "height": int(height)}
        # The WebUI counts the last layer, diffusers those that are left out.
        if (skipped := int(wanted.get("Clip skip", 1)) - 1) and "clip_skip" in self.parameters:
            arguments["clip_skip"] = skipped
        return arguments
