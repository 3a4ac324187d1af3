"""Pipelines from files and folders, and the WebUI's names for their samplers."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import safetensors.torch
import torch
from diffusers.loaders.single_file_utils import (
    infer_diffusers_model_type,
    load_single_file_checkpoint,
)

from lazyneg.core.settings import shown
from lazyneg.painting.samplers import (
    ALIGN_YOUR_STEPS_XL,
    SAMPLERS,
    SCHEDULES,
    Levels,
    schedule_type,
    split_name,
)

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


_VERSION = tuple(map(int, diffusers.__version__.split(".")[:2]))
DTYPE = "dtype" if _VERSION >= (0, 42) else "torch_dtype"
"""What diffusers calls the type to load a pipeline in."""

_INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")


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
        if not (path / _INDEX).exists():
            raise ModelError(f"{path} is not a pipeline: it has no {_INDEX}")
        half = "float16" if (path / "unet").is_dir() else "bfloat16"
    else:
        half = "float16"
    folder = path if path.is_dir() else config
    if folder and (folder / _INDEX).exists():
        _refuse_code(folder)
    kind = getattr(torch, dtype or ("float32" if device == "cpu" else half))
    try:
        if path.is_dir():
            pipe = diffusers.DiffusionPipeline.from_pretrained(path, **{DTYPE: kind})
        else:
            family = _single_file_class(path)
            options = {} if config is None else {"config": str(config)}
            pipe = family.from_single_file(str(path), **{DTYPE: kind}, **options)
        return pipe.to(device)
    except (
        AttributeError,
        ImportError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise ModelError(f"{path} cannot be loaded as a pipeline: {_why(error)}") from error


def _refuse_code(folder: Path) -> None:
    """Refuses a pipeline that brings code of its own, which some versions of diffusers run.

    Raises:
        ModelError: If it does, or does not say what it is made of.
    """
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        parts = {name: part for name, part in index.items() if isinstance(part, list)}
    except (AttributeError, OSError, RecursionError, ValueError) as error:
        raise ModelError(f"{folder / _INDEX} cannot be read: {error}") from error
    for name, part in parts.items():
        # Nothing stands for parts that a pipeline goes without.
        library = part[0] if part else None
        if isinstance(library, str) and (
            name == "_class_name"
            or not (library in _LIBRARIES or hasattr(diffusers.pipelines, library))
            or (folder / name / f"{library}.py").exists()
        ):
            raise ModelError(
                f"{folder} brings code of its own, which is not run: {name} is {shown(part)}; "
                f"allowed: classes of {' and '.join(_LIBRARIES)}"
            )


def _why(error: Exception) -> str:
    """What an error says, but for PyTorch's advice to run what is in a pickle."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, pickle.UnpicklingError):
            return (
                "it is a broken pickle, or one of more than tensors, whose code is not run; "
                "allowed: safetensors, or a pickle of tensors alone"
            )
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _single_file_class(path: Path) -> Any:
    try:
        family = infer_diffusers_model_type(load_single_file_checkpoint(str(path)))
    except Exception as error:
        # Readers of checkpoints raise whatever comes to their mind.
        raise ModelError(f"{path} is not a checkpoint: {_why(error)}") from error
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
    for path in paths:
        _load_embedding(pipe, path)


def _load_embedding(pipe: Any, path: Path) -> None:
    try:
        for suffix, vectors in _embedding(path).items():
            encoder = getattr(pipe, f"text_encoder{suffix}", None)
            if encoder is None:
                raise ValueError(f"the model has no text_encoder{suffix}")
            size = encoder.get_input_embeddings().embedding_dim
            if vectors.shape[-1] != size:
                raise ValueError(
                    f"its vectors have {vectors.shape[-1]} numbers; allowed: {size}, as the "
                    f"model's text_encoder{suffix} has"
                )
            pipe.load_textual_inversion(
                vectors,
                token=path.stem,
                tokenizer=getattr(pipe, f"tokenizer{suffix}"),
                text_encoder=encoder,
            )
    except (
        AttributeError,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        raise ModelError(f"the embedding {path} cannot be used: {_why(error)}") from error


_ENCODERS = {"clip_l": "", "clip_g": "_2"}
"""Stable Diffusion XL's, by what embeddings call them: the ending of diffusers' names."""


def _embedding(path: Path) -> dict[str, torch.Tensor]:
    """The vectors in a file, each by the ending of the names of its encoder and tokenizer.

    Raises:
        ValueError: If they are not in one of the known layouts.
    """
    found: Any
    if path.suffix == ".safetensors":
        found = safetensors.torch.load_file(path)
    else:
        found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, Mapping):
        found = found.get("string_to_param", found)
    if isinstance(found, torch.Tensor):
        found = {"": found}
    tensors = isinstance(found, Mapping) and all(
        isinstance(value, torch.Tensor) and 0 < value.ndim < 3 for value in found.values()
    )
    if tensors and found and set(found) <= _ENCODERS.keys():
        return {_ENCODERS[name]: vectors for name, vectors in found.items()}
    if tensors and len(found) == 1:
        return {"": next(iter(found.values()))}
    shown = type(found).__name__
    if isinstance(found, Mapping):
        # Never the tensors themselves.
        shown = ", ".join(
            f"{name!r} of {list(getattr(value, 'shape', [type(value).__name__]))}"
            for name, value in list(found.items())[:5]
        )
    raise ValueError(
        f"it has {shown or 'nothing'}; allowed: one tensor of vectors, in string_to_param or not, "
        "or for Stable Diffusion XL clip_l and clip_g"
    )


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


def set_sampler(pipe: Any, name: str, schedule: str, steps: int) -> None:
    """Gives a pipeline one of the WebUI's samplers, with the noise levels that the WebUI gives it.

    Args:
        pipe: The pipeline.
        name: The sampler, or the class of the scheduler that the pipeline has; empty keeps it.
        schedule: The WebUI's schedule type, empty for the sampler's own.
        steps: Steps of the run.

    Raises:
        ModelError: If one of them is not known, or not for this pipeline.
    """
    kind = type(pipe.scheduler).__name__
    if name in ("", kind) and schedule in ("", "Automatic"):
        return
    own = _name_of(pipe)
    name, schedule = split_name(own or kind if name in ("", kind) else name, schedule)
    if name not in SAMPLERS:
        raise ModelError(f"the sampler is {name!r}; allowed: {', '.join(SAMPLERS)}")
    if not hasattr(pipe.scheduler, "alphas_cumprod"):
        raise ModelError(
            f"the sampler is {name!r}; allowed for this model: {kind}, as it is not of a kind that "
            "the WebUI's samplers are painted for"
        )
    try:
        wanted = schedule_type(name, schedule)
    except ValueError as error:
        raise ModelError(str(error)) from error
    if name != own or (wanted is not None and wanted != _schedule_of(pipe, name, steps)):
        pipe.scheduler = _scheduler(pipe, name, wanted)


def sampler_of(pipe: Any, steps: int) -> dict[str, str]:
    """The WebUI's parameters that say what a pipeline's scheduler does; else its class's name.

    Args:
        pipe: The pipeline.
        steps: Steps of the run.
    """
    name = _name_of(pipe)
    if name is None:
        return {"Sampler": type(pipe.scheduler).__name__}
    sampler = SAMPLERS[name]
    if sampler.automatic is None:
        return {"Sampler": name}
    schedule = _schedule_of(pipe, name, steps)
    if schedule is None:
        return {"Sampler": sampler.scheduler}
    # Where the WebUI's default is what every version of it does, it goes without saying.
    default = schedule == sampler.automatic == "Uniform"
    return {"Sampler": name, **({} if default else {"Schedule type": schedule})}


def evaluations(pipe: Any) -> int:
    """Iterations of a pipeline's loop that make one step of its sampler."""
    kind = type(pipe.scheduler).__name__
    known = (sampler.evaluations for sampler in SAMPLERS.values() if sampler.scheduler == kind)
    return next(known, 1)


def _name_of(pipe: Any) -> str | None:
    """The WebUI's name for a pipeline's sampler, whatever its noise levels."""
    kind = type(pipe.scheduler).__name__
    config = pipe.scheduler.config
    for name, sampler in SAMPLERS.items():
        if kind == sampler.scheduler and all(
            config.get(key) == value for key, value in sampler.options.items()
        ):
            return name
    return None


def _schedule_of(pipe: Any, name: str, steps: int) -> str | None:
    """The schedule type under which the WebUI runs through the same noise levels."""
    if isinstance(pipe.scheduler, _Scheduled):
        return pipe.scheduler.schedule
    own = _timesteps(pipe.scheduler, steps)
    apart = {}
    for schedule in SCHEDULES:
        theirs = _timesteps(_scheduler(pipe, name, schedule), steps)
        if own.shape == theirs.shape:
            apart[schedule] = np.abs(own - theirs).mean()
    nearest = min(apart, key=apart.__getitem__, default=None)
    # Half a timestep of the training, as some of diffusers' are rounded.
    return nearest if nearest is not None and apart[nearest] <= 0.5 else None


def _timesteps(scheduler: Any, steps: int) -> Levels:
    """The timesteps of a run; none where there is no such run."""
    fresh = type(scheduler).from_config(scheduler.config)
    try:
        fresh.set_timesteps(steps)
    except ValueError:
        return np.full(1, np.inf)
    timesteps: Levels = fresh.timesteps.double().numpy()
    return timesteps


def _scheduler(pipe: Any, name: str, schedule: str | None) -> Any:
    """A scheduler for a pipeline's model that is one of the WebUI's samplers."""
    sampler = SAMPLERS[name]
    kind: Any = getattr(diffusers, sampler.scheduler)
    options = {
        **sampler.options,
        **dict.fromkeys(("use_karras_sigmas", "use_beta_sigmas", "use_lu_lambdas"), False),
        "use_exponential_sigmas": False,
    }
    if schedule is not None:
        levels = SCHEDULES[schedule]
        if schedule == "Align Your Steps" and "StableDiffusionXL" in type(pipe).__name__:
            levels = ALIGN_YOUR_STEPS_XL
        way = _OneLevel if sampler.evaluations == 1 else _TwoLevels
        about = {"schedule": schedule, "levels": staticmethod(levels), "cut": sampler.cut}
        kind = type(sampler.scheduler, (way, kind), about)
        options |= {
            "timestep_spacing": "linspace",
            "final_sigmas_type": "zero",
            "use_exponential_sigmas": way is _TwoLevels,
        }
    return kind.from_config(pipe.scheduler.config, **options)


class _Scheduled:
    """What gives a scheduler of diffusers the noise levels of a schedule type.

    diffusers' own options for that differ from the WebUI's schedules in their ends, in rounding
    and by scheduler, and some schedulers have none.
    """

    schedule: str
    levels: Any
    cut: bool
    alphas_cumprod: torch.Tensor

    def _wanted(self, steps: int) -> Levels:
        wanted: Levels = self.levels(steps + self.cut, self._training())
        return wanted[:-1] if self.cut else wanted

    def _training(self) -> Levels:
        alphas = self.alphas_cumprod.double().cpu().numpy()
        levels: Levels = np.sqrt((1 - alphas) / alphas)
        return levels


class _OneLevel(_Scheduled):
    """For schedulers with one noise level a step."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device)  # type: ignore[misc]
        levels = self._wanted(num_inference_steps)
        training = np.log(self._training())
        timesteps = np.interp(np.log(levels), training, np.arange(len(training)))
        self.sigmas = torch.tensor([*levels, 0], dtype=torch.float32)
        self.timesteps = torch.tensor(timesteps, dtype=torch.float32, device=device)
        self.num_inference_steps = len(levels)
        if "init_noise_sigma" in vars(self):
            # Not pure noise, but that of the first level.
            self.init_noise_sigma = float(levels[0] / np.hypot(levels[0], 1))


class _TwoLevels(_Scheduled):
    """For schedulers that put further noise levels between those of the steps."""

    def _convert_to_exponential(self, in_sigmas: Levels, num_inference_steps: int) -> Levels:
        return self._wanted(num_inference_steps)
