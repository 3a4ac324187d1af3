"""What strangers send: nothing of it is run, unpickled, used as a path or shown as markup."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from typer.testing import CliRunner

from fuzz import properties
from lazyneg.cli import app, options
from lazyneg.core.settings import BY_NAME, Settings
from lazyneg.painting import models, pictures, reading
from lazyneg.painting.infotext import Infotext
from lazyneg.painting.models import ModelError
from lazyneg.painting.painter import Painter
from lazyneg.sweep.detectors import DetectorError, ZeroShot
from lazyneg.sweep.measuring import Looking
from lazyneg.sweep.plan import Grid, Plan
from lazyneg.sweep.run import sweep
from tests.diffusers.tiny import pipeline

ROOT = Path(__file__).parents[1]

_watched: list[tuple[str, Any]] | None = None


def _watch(event: str, args: Any) -> None:
    if _watched is not None:
        _watched.append((event, args))


# Python tells of each code that it runs, file that it opens and module that it imports.
sys.addaudithook(_watch)

_RUNNING = re.compile(
    r"exec|compile|import|marshal\.|pickle\.|os\.(exec|posix_spawn|spawn|system)|subprocess\.|"
    r"socket\.(connect|getaddrinfo)|urllib\.|ctypes\."
)
_WRITING = re.compile(r"os\.(mkdir|rename|remove|rmdir|link|symlink|truncate|chmod)|shutil\.")


@contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    """What Python tells meanwhile."""
    global _watched
    events: list[tuple[str, Any]] = []
    _watched = events
    try:
        yield events
    finally:
        _watched = None


@contextmanager
def nothing_runs(*readable: Path) -> Iterator[None]:
    """No code is run and no file is opened meanwhile, but those given for reading."""
    with watched() as events:
        yield
    bad = [
        (event, args)
        for event, args in events
        if _RUNNING.match(event)
        or _WRITING.match(event)
        or (event == "open" and (args[0] not in {*map(str, readable)} or args[1] != "r"))
    ]
    assert not bad


@contextmanager
def writes_only_in(folder: Path) -> Iterator[None]:
    """No file outside a folder is opened for writing meanwhile."""
    with watched() as events:
        yield
    written = [
        args[0]
        for event, args in events
        if event == "open" and isinstance(args[0], str) and set(str(args[1])) & set("wax+")
    ]
    assert written
    assert all(Path(name).resolve().is_relative_to(folder.resolve()) for name in written)


HOSTILE = [
    "__import__('os').system('touch pwned')",
    "{{7*7}} ${7*7} {0.__class__} %(x)s",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "../../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "C:\\Windows\\win.ini",
    "!!python/object/apply:os.system ['touch pwned']",
    "cos\nsystem\n(S'touch pwned'\ntR.",
    "$(touch pwned) `touch pwned` ; touch pwned",
    "\x1b]0;pwned\x07\x1b[2J",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_settings_tags_and_infotexts(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    everywhere = {name: text for name, setting in BY_NAME.items() if setting.infotext}
    parameters = {**properties.USUAL, **{BY_NAME[name].infotext or "": text for name in everywhere}}
    written = str(Infotext(text, text, parameters))
    png = tmp_path / "hostile.png"
    pictures.save(Image.new("RGB", (8, 8)), png, written)
    path.write_text(written, "utf-8")

    def read() -> None:
        for name in BY_NAME:
            properties.arguments({"enabled": True, name: text, text: 1})
            properties.arguments({"enabled": True, name: text})
        properties.tags(f"<lazyneg:{text}> <lazyneg {text}>", text, Settings())
        properties.infotexts(written)
        properties.sweep_options(text)
        for file in (path, png):
            with suppress(reading.ReadingError):
                reading.infotexts(file)

    # Codecs and the like are loaded when they are first used.
    read()
    with nothing_runs(path, png):
        read()


def test_the_watch_sees_what_runs(tmp_path: Path) -> None:
    for action in (
        lambda: eval("1"),
        lambda: (tmp_path / "x").write_text("x"),
        lambda: torch.load(pickled(tmp_path / "x.pt"), weights_only=False),
    ):
        with pytest.raises((AssertionError, ModuleNotFoundError)), nothing_runs():
            action()


def test_an_infotext_names_no_file(model: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    last = "Steps: 1, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 16x16"
    hostile = ", ".join(f'Model: "{away}/x"' for _ in range(2))
    source = tmp_path / "x.txt"
    source.write_text(
        f"../../{away}/x \x1b[2J<lazyneg:\x1b]0;pwned\x1b\\>\nNegative prompt: {away}/y\n"
        f'{last}, {hostile}, Lora hashes: "{away}: 1", VAE: {away}/vae.pt, Template: {away}\n'
        f"Template: \x1b[2J",
        "utf-8",
    )
    folder = tmp_path / "out"
    arguments = ["--from", source, "--model", model, "--device", "cpu", "--output", folder]
    with writes_only_in(folder):
        result = CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.png" for name in ("plain", "delayed", "empty", "compare")
    }
    assert not away.exists()
    # Nothing that a terminal obeys, of what is told of the tag and of what is left out.
    assert "ignores a tag" in result.stderr
    assert "left out" in result.stderr
    # Progress bars move the cursor themselves.
    assert "\x1b[2J" not in result.output
    assert "\x1b]0;" not in result.output


@pytest.mark.parametrize("text", ["\x1b[2J", "a\x9b2J", "\x07\r\b"])
def test_terminals_obey_nothing(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    options.say(text)
    options.failed(text)
    shown = capsys.readouterr().err
    assert shown.count("\\x") == 2 * len(set(text) - set("[2Ja"))
    assert not set(text) & set(shown) - set("[2Ja")


class Hostile:
    """Runs something as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def pickled(path: Path) -> Path:
    """A file that would make a folder beside it."""
    torch.save({"a": torch.ones(2, 32), "b": Hostile(path.parent / "pwned")}, path)
    return path


@pytest.mark.parametrize("name", ["new.pt", "new.bin", "new.ckpt", "new.safetensors"])
def test_embeddings_are_not_unpickled(tmp_path: Path, name: str) -> None:
    path = pickled(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be used: ") as refused:
        models.load_embeddings(pipeline("sd"), [path])
    check_refused(path, str(refused.value))


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model.safetensors"])
def test_checkpoints_are_not_unpickled(tmp_path: Path, name: str) -> None:
    path = pickled(tmp_path / name)
    with pytest.raises(ModelError, match="is not a checkpoint: ") as refused:
        models.load(path, None, "cpu", None)
    check_refused(path, str(refused.value))


def check_refused(path: Path, message: str) -> None:
    assert not (path.parent / "pwned").exists()
    if path.suffix != ".safetensors":
        assert "a broken pickle, or one of more than tensors, whose code is not run" in message
        assert "allowed: safetensors, or a pickle of tensors alone" in message
    assert "weights_only" not in message


@pytest.mark.parametrize(
    "weights",
    ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/pytorch_model"],
)
def test_weights_of_a_folder_are_not_unpickled(model: Path, tmp_path: Path, weights: str) -> None:
    folder = copied(model, tmp_path)
    path = folder / f"{weights}.bin"
    for file in path.parent.glob("*.safetensors"):
        file.unlink()
    torch.save({"a": Hostile(tmp_path / "pwned")}, path)
    with pytest.raises(ModelError, match="cannot be loaded as a pipeline: ") as refused:
        models.load(folder, None, "cpu", None)
    assert not (tmp_path / "pwned").exists()
    assert "weights_only" not in str(refused.value)


def copied(model: Path, to: Path) -> Path:
    for path in model.rglob("*"):
        if path.is_file():
            new = to / "model" / path.relative_to(model)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(path.read_bytes())
    return to / "model"


def code(path: Path, marker: Path) -> None:
    """A module that would make a folder."""
    path.write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Own: pass\n")


@pytest.mark.parametrize(
    ("part", "value", "module"),
    [
        ("_class_name", ["own", "Own"], "own.py"),
        ("unet", ["own", "Own"], "unet/own.py"),
        ("unet", ["diffusers", "UNet2DConditionModel"], "unet/diffusers.py"),
        ("text_encoder", ["lazyneg_hostile", "Own"], None),
        ("tokenizer", ["os", "system"], None),
    ],
)
def test_code_of_a_model_is_not_run(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    value: list[str],
    module: str | None,
) -> None:
    folder = copied(model, tmp_path)
    index = json.loads((folder / "model_index.json").read_bytes())
    (folder / "model_index.json").write_text(json.dumps({**index, part: value}))
    if module:
        code(folder / module, tmp_path / "pwned")
    code(folder / "unet" / "lazyneg_hostile.py", tmp_path / "pwned")
    monkeypatch.syspath_prepend(folder / "unet")
    checkpoint = ROOT / "lazyneg" / "demo" / "weights" / "lazyneg-demo.safetensors"
    for path, config in ((folder, None), (checkpoint, folder)):
        with pytest.raises(ModelError, match="brings code of its own, which is not run") as refused:
            models.load(path, config, "cpu", None)
        assert f"{part} is {value!r}; allowed: classes of diffusers" in str(refused.value)
    assert not (tmp_path / "pwned").exists()
    assert "lazyneg_hostile" not in sys.modules


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, "\0", '{"unet": [["a"]]}', "{}"])
def test_a_broken_index_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_index.json").write_text(text)
    with pytest.raises(ModelError, match=r"cannot be (read|loaded as a pipeline): "):
        models.load(tmp_path, None, "cpu", None)


def test_code_of_a_detector_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "detector"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "own",
                "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"},
                "architectures": ["Own"],
            }
        )
    )
    code(folder / "own.py", tmp_path / "pwned")
    with pytest.raises(DetectorError, match="cannot be loaded for clip"):
        ZeroShot("clip", folder, ["hat"], "cpu")
    assert not (tmp_path / "pwned").exists()


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_a_report_shows_texts_as_texts(model: Path, tmp_path: Path) -> None:
    hostile = "<script>x()</script>\"'><img src=x onerror=x()> {{7*7}} ../../x \n[a](javascript:x)"

    class Finding:
        names = (hostile,)

        def __call__(self, images: Any) -> Any:
            return np.ones((len(images), 1))

    parameters = {"Steps": "1", "CFG scale": "7", "Size": "16x16"}
    grid = Grid([hostile], [hostile], [1, 2], [0], [0], "steps", parameters, 2)
    painter = Painter(model, None, [], "cpu", None)
    plan = Plan(grid, 1, {**painter.made_with(), "Model": hostile})
    folder = tmp_path / "sweep"
    with writes_only_in(folder):
        sweep(plan, painter, Looking(Finding(), {hostile: [hostile]}), folder)
    page = Elements()
    page.feed((folder / "index.html").read_text("utf-8"))
    page.feed(MarkdownIt().render((folder / "report.md").read_text("utf-8")))
    assert not page.found & {"script", "onerror", "iframe"}
    shown = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {link for link in page.links if not link.startswith("#")} <= shown
    assert all(re.fullmatch(r"[\w.-]+", part) for name in shown for part in name.split("/"))


MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
)


def test_the_script_of_the_page_makes_no_markup_of_texts() -> None:
    assert MARKUP.search("node.innerHTML = text")
    for path in (ROOT / "javascript").glob("*.js"):
        assert not MARKUP.search(path.read_text("utf-8"))
