"""Which WebUI a folder holds, how it is started on the CPU, and what of it is broken by itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_FLAGS = (
    "--skip-prepare-environment --skip-torch-cuda-test --skip-version-check --api "
    "--disable-nan-check --no-download-sd-model --do-not-download-clip"
)


@dataclass(frozen=True)
class Kind:
    """A WebUI.

    Attributes:
        name: Its name.
        flags: Flags to start it with on the CPU.
        forge: Whether it is of the Forge family, which tells checkpoints by their shapes.
        checkpoints: Those that the tests make for it; the first is the one in use.
        hires: What its API wants with a hires pass, and the guidance that it defaults to.
        preview: What its option for the decoding of latents calls the one without an autoencoder.
        keeps_accordions: Whether its Defaults page keeps which accordions are ticked, also its own.
            Forge's compares their class with a function.
        broken: Samplers whose pictures are black, or fail, without the extension too.
    """

    name: str
    flags: str
    forge: bool
    checkpoints: tuple[str, ...]
    hires: tuple[tuple[str, object], ...] = ()
    preview: str = "Full"
    keeps_accordions: bool = True
    broken: tuple[str, ...] = ()


_FORGE = ("sd1", "sd1b", "sd1-inpainting", "sdxl")
_FORGE_FLAGS = f"{_FLAGS} --always-cpu"
_MODULES = ("hr_additional_modules", ["Use same choices"])

A1111 = Kind(
    "A1111",
    f"{_FLAGS} --use-cpu all --no-half",
    forge=False,
    checkpoints=(
        *("sd1", "sd1b", "sd1-inpainting", "sd1-edit"),
        *("sd2", "sd2-v", "sdxl", "sdxl-refiner", "sd3"),
    ),
)
FORGE = Kind(
    "Forge",
    _FORGE_FLAGS,
    True,
    _FORGE,
    hires=(_MODULES, ("hr_cfg", 7.5)),
    preview="Approx cheap",
    keeps_accordions=False,
)
REFORGE = Kind(
    "reForge",
    _FORGE_FLAGS,
    True,
    _FORGE,
    hires=(("hr_cfg", 7.5),),
    preview="Approx cheap",
    broken=("DPM++ 2S Ancestral Comfy RF", "Euler A Comfy RF"),
)
NEO = Kind(
    "Forge Neo",
    "--skip-prepare-environment --skip-torch-cuda-test --skip-version-check "
    "--skip-python-version-check --api --cpu",
    True,
    _FORGE,
    hires=(_MODULES, ("hr_cfg", 7.5)),
    preview="RGB",
    broken=("DPM++ 2s a RF",),
)


@dataclass(frozen=True)
class Host:
    """An installed WebUI."""

    folder: Path
    python: str
    kind: Kind


def installed() -> list[Host]:
    """The WebUIs that ``WEBUI_DIR`` names, and their Pythons by ``WEBUI_PYTHON``.

    Both are path lists. Where no Python is named, it is that of the WebUI's own ``venv``.
    """
    folders = [Path(one).resolve() for one in _listed("WEBUI_DIR")]
    pythons = _listed("WEBUI_PYTHON") or [str(one / "venv" / "bin" / "python") for one in folders]
    if len(folders) != len(pythons):
        raise ValueError(
            f"WEBUI_DIR names {len(folders)} folders and WEBUI_PYTHON {len(pythons)} Pythons; "
            "allowed: one for each, or none"
        )
    return [Host(*pair, identified(pair[0])) for pair in zip(folders, pythons)]


def identified(folder: Path) -> Kind:
    """Which WebUI is in a folder, by what only it has.

    Raises:
        ValueError: If it is none of them.
    """
    if not (folder / "modules" / "script_callbacks.py").exists():
        raise ValueError(f"{folder} holds no WebUI; allowed: A1111, Forge, reForge, Forge Neo")
    if not (folder / "modules_forge").exists():
        return A1111
    if (folder / "ldm_patched").exists():
        return REFORGE
    return FORGE if (folder / "modules" / "sd_hijack.py").exists() else NEO


def _listed(variable: str) -> list[str]:
    return [one for one in os.environ.get(variable, "").split(os.pathsep) if one]
