"""What is tried on more than one version: `uvx nox`, or `uvx nox -s docs`.

`make test` is the check of every change, on the versions in `requirements-dev.txt`.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv"

PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))


@nox.session(python=PYTHONS)
@nox.parametrize("resolution", ["lowest-direct", "highest"], ids=["oldest", "newest"])
def tests(session: nox.Session, resolution: str) -> None:
    """The tests with the oldest and the newest versions that the metadata allows."""
    # Wheels only: the oldest version that has one for this Python.
    wheels = ["--resolution", resolution, "--only-binary", ":all:"]
    session.run_install(
        *("uv", "pip", "install", *wheels, "-r", "pyproject.toml", "--extra", "test")
    )
    session.run("python", "-m", "pytest", *(session.posargs or ("-n", "2", "--dist", "loadfile")))


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """The wheel alone, in an environment of its own, paints with the embedded model."""
    folder = Path(session.create_tmp())
    session.run_install("uv", "build", "--out-dir", str(folder / "dist"))
    built = next((folder / "dist").glob("*.whl"))
    session.run_install("uv", "pip", "install", f"{built}[cli]")
    session.chdir(folder)
    session.run("lazyneg", "--version")
    session.run("lazyneg", "compare", "girl eating pizza", "--negative", "glasses", "--steps", "4")


@nox.session
def package(session: nox.Session) -> None:
    """Both distributions, into dist/, as a release uploads them."""
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))


@nox.session
def docs(session: nox.Session) -> None:
    """The site, without a warning."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict")
