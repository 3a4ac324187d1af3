"""Pipelines from files and folders, and the WebUI's names for their samplers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import (
    infer_diffusers_model_type,
    load_single_file_checkpoint,
)

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ SDE": ("DPMSolverSDEScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}
"""The WebUI's samplers, as schedulers of diffusers."""

_SCHEDULES = {"Karras": "use_karras_sigmas", "Exponential": "use_exponential_sigmas"}

_SINGLE_FILE = {
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
    "xl_base": "StableDiffusionXLPipeline",
    "playground-v2-5": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd35_medium": "StableDiffusion3Pipeline",
    "sd35_large": "StableDiffusion3Pipeline",
    "flux-dev": "FluxPipeline",
    "auraflow": "AuraFlowPipeline",
    "chroma": "ChromaPipeline",
}


class ModelError(Exception):
    """A model cannot be used. The message says why, and what can."""


def default_device() -> str:
    """The fastest device there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load(path: Path, config: Path | None, device: str, dtype: str | None) -> Any:
    """Loads a pipeline.

    Args:
        path: A checkpoint file or a folder in diffusers' layout.
        config: Folder with the configuration for a checkpoint file; without it, diffusers
            fetches the one of the model's family.
        device: Where to run it.
        dtype: Name of PyTorch's type. If not given, single precision on the CPU and half
            elsewhere.

    Raises:
        ModelError: If there is no pipeline there.
    """
    if not path.exists():
        raise ModelError(f"there is no file or folder {path}")
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise ModelError(
            f"the device is {device!r}; allowed: cpu, and cuda, cuda:0, mps and so on where there "
            "is one"
        ) from error
    if path.is_dir():
        if not (path / "model_index.json").exists():
            raise ModelError(f"{path} is not a pipeline: it has no model_index.json")
        half = "float16" if (path / "unet").is_dir() else "bfloat16"
    else:
        half = "float16"
    kind = getattr(torch, dtype or ("float32" if device == "cpu" else half))
    try:
        if path.is_dir():
            pipe = diffusers.DiffusionPipeline.from_pretrained(path, torch_dtype=kind)
        else:
            family = _single_file_class(path)
            options = {} if config is None else {"config": str(config)}
            pipe = family.from_single_file(str(path), torch_dtype=kind, **options)
        return pipe.to(device)
    except (AttributeError, ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} cannot be loaded as a pipeline: {error}") from error


def _single_file_class(path: Path) -> Any:
    try:
        family = infer_diffusers_model_type(load_single_file_checkpoint(str(path)))
    except Exception as error:
        # Readers of checkpoints raise whatever comes to their mind.
        raise ModelError(f"{path} is not a checkpoint: {error}") from error
    if family not in _SINGLE_FILE:
        raise ModelError(
            f"{path} is a checkpoint of the family {family}; allowed: "
            f"{', '.join(_SINGLE_FILE)}, or a folder in diffusers' layout"
        )
    return getattr(diffusers, _SINGLE_FILE[family])


def load_embeddings(pipe: Any, paths: Iterable[Path]) -> None:
    """Loads textual inversions; the name of each file is the word for it.

    Raises:
        ModelError: If one cannot be used with this pipeline.
    """
    try:
        for path in paths:
            pipe.load_textual_inversion(str(path), token=path.stem)
    except (AttributeError, OSError, ValueError) as error:
        raise ModelError(f"the embedding {path} cannot be used: {error}") from error


def short_hash(path: Path) -> str:
    """The WebUI's name for a checkpoint file: the begin of its SHA-256.

    For a folder, that of its files and their names.
    """
    digest = hashlib.sha256()
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_dir():
            continue
        if part is not path:
            digest.update(f"{part.relative_to(path).as_posix()}\n".encode())
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:10]


def set_sampler(pipe: Any, name: str, schedule: str) -> None:
    """Gives a pipeline one of the WebUI's samplers.

    Args:
        pipe: The pipeline.
        name: The sampler, or the class of the scheduler that the pipeline has.
        schedule: The WebUI's schedule type, empty for the sampler's own.

    Raises:
        ModelError: If one of them is not known.
    """
    for known in _SCHEDULES:
        # Once the schedule was a part of the name.
        if name.endswith(f" {known}"):
            name, schedule = name.removesuffix(f" {known}"), known
    own = sampler_of(pipe)
    if name == own["Sampler"] and schedule == own.get("Schedule type", ""):
        return
    if name not in SAMPLERS:
        raise ModelError(f"the sampler is {name!r}; allowed: {', '.join(SAMPLERS)}")
    if schedule not in ("", "Automatic", *_SCHEDULES):
        raise ModelError(
            f"the schedule type is {schedule!r}; allowed: Automatic, {', '.join(_SCHEDULES)}"
        )
    kind, options = SAMPLERS[name]
    sigmas = {option: schedule == known for known, option in _SCHEDULES.items()}
    pipe.scheduler = getattr(diffusers, kind).from_config(
        pipe.scheduler.config, **options, **sigmas
    )


def sampler_of(pipe: Any) -> dict[str, str]:
    """The WebUI's parameters for a pipeline's scheduler; else the name of its class."""
    kind = type(pipe.scheduler).__name__
    config = pipe.scheduler.config
    names = [
        name
        for name, (known, options) in SAMPLERS.items()
        if kind == known and all(config.get(key) == value for key, value in options.items())
    ]
    found = {"Sampler": names[0] if names else kind}
    for known, option in _SCHEDULES.items():
        if config.get(option):
            found["Schedule type"] = known
    return found
