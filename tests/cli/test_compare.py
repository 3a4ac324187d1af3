"""The command on a real, tiny model in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner, Result

import lazyneg
from lazyneg.cli import app
from lazyneg.painting.infotext import parse
from lazyneg.painting.pictures import side_by_side
from tests.diffusers.tiny import pipeline

SIZE = ["--width", "32", "--height", "16", "--steps", "4", "--seed", "7", "--device", "cpu"]
DEMO = ["girl eating pizza", "--negative", "wearing glasses", "--critical-step", "2", *SIZE]


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


def parameters(path: Path) -> str:
    return str(Image.open(path).info["parameters"])


def painted(model: Path, critical_step: int, **more: Any) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(model)
    lazyneg.apply(pipe, critical_step)
    call = {
        "prompt": "girl eating pizza",
        "negative_prompt": "wearing glasses",
        "width": 32,
        "height": 16,
        "num_inference_steps": 4,
        "guidance_scale": 7.0,
        "generator": torch.Generator().manual_seed(7),
        **more,
    }
    return np.asarray(pipe(**call).images[0])


def test_paints_plain_delayed_and_empty(model: Path, tmp_path: Path) -> None:
    result = compare(*DEMO, "--model", model, "--output", tmp_path)
    names = ["plain", "delayed", "empty", "compare"]
    assert result.stdout.split() == [str(tmp_path / f"{name}.png") for name in names]
    assert np.array_equal(pixels(tmp_path / "plain.png"), painted(model, 0))
    assert np.array_equal(pixels(tmp_path / "delayed.png"), painted(model, 2))
    assert np.array_equal(pixels(tmp_path / "empty.png"), painted(model, 9))
    row = pixels(tmp_path / "compare.png")
    below = row[-16:]
    parts = [pixels(tmp_path / f"{name}.png") for name in names[:3]]
    assert np.array_equal(below, np.concatenate(parts, axis=1))
    labels = ["from 0", "from 2", "no negative"]
    drawn = side_by_side(list(zip(labels, map(Image.fromarray, parts))))
    assert np.array_equal(row, np.asarray(drawn))


def test_infotext(model: Path, tmp_path: Path) -> None:
    compare(*DEMO, "--model", model, "--output", tmp_path)
    last = "Steps: 4, Sampler: DDIM, CFG scale: 7, Seed: 7, Size: 32x16, Model: tiny"
    prompts = "girl eating pizza\nNegative prompt: wearing glasses\n"
    delayed = f"{prompts}{last}, LazyNeg critical step: 2"
    assert parameters(tmp_path / "plain.png") == f"{prompts}{last}"
    assert parameters(tmp_path / "delayed.png") == delayed
    assert parameters(tmp_path / "empty.png") == f"girl eating pizza\n{last}"
    assert parameters(tmp_path / "compare.png") == delayed


def test_starts_from_its_own_picture(model: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    compare(*DEMO, "--model", model, "--output", first, "--sampler", "Euler a", "--stop-step", "3")
    source = first / "compare.png"
    compare("--from", source, "--model", model, "--output", again, "--device", "cpu")
    for path in first.iterdir():
        assert np.array_equal(pixels(path), pixels(again / path.name))
        assert parameters(path) == parameters(again / path.name)


def test_arguments_overrule_the_infotext(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "girl.txt"
    source.write_text(
        "girl\nNegative prompt: ugly\nSteps: 4, Sampler: Euler, Schedule type: Karras, "
        "CFG scale: 5.5, Seed: 3, Size: 64x64, LazyNeg critical step: 50%"
    )
    compare("cat", *SIZE, "--critical-step", "25", "--from", source, "--model", model,
            "--output", tmp_path)  # fmt: skip
    text = parse(parameters(tmp_path / "delayed.png"))
    assert (text.prompt, text.negative) == ("cat", "ugly")
    assert text.parameters == {
        "Steps": "4",
        "Sampler": "Euler",
        "Schedule type": "Karras",
        "CFG scale": "5.5",
        "Seed": "7",
        "Size": "32x16",
        "Model": "tiny",
        "LazyNeg critical step": "25%",
    }


def test_the_pairs_of_the_article(model: Path, tmp_path: Path) -> None:
    embedding = tmp_path / "EasyNegativeV2.pt"
    vector = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    torch.save({"EasyNegativeV2": vector}, embedding)
    source = Path(__file__).parents[2] / "examples" / "diffusers" / "article.txt"
    result = compare(
        "--from", source, *SIZE, "--embedding", embedding, "--model", model, "--output", tmp_path
    )
    assert len(result.stdout.split()) == 12
    assert parse(parameters(tmp_path / "3-delayed.png")).parameters["LazyNeg critical step"] == "5"
    assert np.array_equal(
        pixels(tmp_path / "2-plain.png"),
        painted(model, 0, negative_prompt="wearning glasses", guidance_scale=7.5),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["girl"], "--negative"),
        (["--negative", "ugly"], "PROMPT"),
        ([*DEMO, "--critical-step", "-1"], "critical_step is -1"),
        ([*DEMO, "--unit", "minutes"], "'minutes'"),
        ([*DEMO, "--steps", "0"], "'--steps': 0; allowed: 1 or more"),
        ([*DEMO, "--seed", str(2**64)], "16; allowed: 0 to 18446744073709551615"),
        ([*DEMO, "--embedding", "missing.pt"], "'missing.pt' does not exist"),
        ([*DEMO, "--output", __file__], "test_compare.py' is a file"),
        (["girl", "--negative", "ugly", "--width", "64"], "give both or none"),
        ([*DEMO, "--model", "nowhere"], "there is no file or folder nowhere"),
        ([*DEMO, "--guidance-scale", "-1"], "-1.0; allowed: 0 to 1000"),
        ([*DEMO, "--device", "nope"], "the device is 'nope'; allowed: cpu, and cuda"),
        (["--from", "nowhere.png"], "cannot read nowhere.png"),
    ],
)
def test_errors_name_what_is_wrong(arguments: list[str], message: str) -> None:
    result = compare(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_errors_of_models(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    (tmp_path / "folder").mkdir()
    plain = pipeline("sd")
    DDPMPipeline(plain.unet, plain.scheduler).save_pretrained(tmp_path / "ddpm")
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    for name, message in (
        ("text.safetensors", "is not a checkpoint"),
        ("unknown", "cannot be loaded as a pipeline"),
        ("folder", "is not a pipeline: it has no model_index.json"),
        ("ddpm", "takes no negative prompt"),
    ):
        result = compare(*DEMO, "--model", tmp_path / name)
        assert result.exit_code == 1
        assert message in result.stderr
    for more, message in (
        (["--sampler", "Guess"], "the sampler is 'Guess'; allowed: DPM++ 2M"),
        (["--embedding", tmp_path / "text.safetensors"], "text.safetensors cannot be used"),
        (["--width", "33", "--height", "16"], "divisible by 8"),
    ):
        result = compare(*DEMO, "--model", model, "--output", tmp_path, *more)
        assert result.exit_code == 1
        assert message in result.stderr


def test_out_of_memory_says_what_to_try(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError

    # There is no device here to fill.
    monkeypatch.setattr(StableDiffusionPipeline, "check_inputs", fail)
    result = compare(*DEMO, "--model", model, "--output", tmp_path)
    assert result.exit_code == 1
    assert "out of memory on cpu: try a smaller --width" in result.stderr


def test_a_picture_without_infotext(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    result = compare("--from", tmp_path / "bare.png")
    assert "there is no infotext in" in result.stderr
