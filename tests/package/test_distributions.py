"""What is uploaded: built as for a release, the wheel from the source distribution."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

import lazyneg

ROOT = Path(__file__).parents[2]

CLIENT = """
import lazyneg
from lazyneg.core.settings import Settings


class Pipeline:
    components: dict[str, object] = {}

    def __call__(self, prompt: str, negative_prompt: str) -> list[int]:
        return [len(prompt) - len(negative_prompt)]


pipe = lazyneg.apply(Pipeline(), critical_step=5, unit="percent", stop_step=None)
lengths: list[int] = pipe("girl eating pizza", "glasses")
with lazyneg.lazy_negative(pipe, area=10, adaptive=True) as delayed:
    lengths = delayed("girl eating pizza", "glasses")
plain: Pipeline = lazyneg.remove(pipe)
steps: list[int] = list(lazyneg.sweep_steps(pipe, "girl", critical_steps=range(3)))
critical: int = Settings.parse({"enabled": True}).window(20).critical
version: str = lazyneg.__version__
"""


@dataclass(frozen=True)
class Built:
    source: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return Built(next(folder.glob("*.tar.gz")), next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def python(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    zipfile.ZipFile(built.wheel).extractall(next(folder.glob("lib/python*/site-packages")))
    return folder / "bin" / "python"


def files_of_the_package() -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for file in (ROOT / "lazyneg").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_has_all_but_the_extension(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {name for name in files_of_the_package() if not name.startswith("lazyneg/webui/")}
    assert names == expected


def test_the_source_distribution_has_what_the_tests_need(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= files_of_the_package()
    wanted = ("Makefile", "javascript", "localizations", "scripts", "examples", "docs", "tests")
    for name in wanted:
        path = ROOT / name
        inside = [path] if path.is_file() else path.rglob("*")
        assert names >= {
            str(file.relative_to(ROOT))
            for file in inside
            if file.is_file() and "__pycache__" not in file.parts
        }


def test_there_is_one_version(built: Built, python: Path) -> None:
    assert metadata(built.wheel)["Version"] == lazyneg.__version__
    assert f"-{lazyneg.__version__}" in built.source.name
    code = "import lazyneg; print(lazyneg.__version__)"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == lazyneg.__version__


def test_pictures_and_links_of_the_description_are_absolute(built: Built) -> None:
    text = metadata(built.wheel).get_payload()
    assert isinstance(text, str)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    # Those of the repository are the ones that belong to this version.
    assert f"/v{lazyneg.__version__}/docs/images/" in text
    assert f"/blob/v{lazyneg.__version__}/docs/" in text
    for path in re.findall(rf"/v{re.escape(lazyneg.__version__)}/([^)#\s]+)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ("", None),
        ('lazyneg.apply(pipe, critical_step="5")', '"critical_step" to "apply"'),
        ("lazyneg.nonsense", 'Module has no attribute "nonsense"'),
    ],
)
def test_a_typed_client_is_checked_against_the_wheel(
    wrong: str, because: str | None, python: Path, tmp_path: Path
) -> None:
    client = tmp_path / "client.py"
    client.write_text(f"{CLIENT}{wrong}\n", "utf-8")
    options = [f"--cache-dir={python.parent}/cache", f"--python-executable={python}"]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", *options, str(client)]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    if because is None:
        assert shown.returncode == 0, shown.stdout
    else:
        assert because in shown.stdout
        assert "Found 1 error" in shown.stdout
