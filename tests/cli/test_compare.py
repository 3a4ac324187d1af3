"""The command on a real, tiny model in a folder."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, EulerDiscreteScheduler, StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner, Result

import lazyneg
from lazyneg.cli import app
from lazyneg.painting.infotext import parse
from lazyneg.painting.pictures import side_by_side
from tests.diffusers.tiny import pipeline

ROOT = Path(__file__).parents[2]
SIZE = ["--width", "32", "--height", "16", "--steps", "4", "--seed", "7", "--device", "cpu"]
DEMO = ["girl eating pizza", "--negative", "wearing glasses", "--critical-step", "2", *SIZE]


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


def parameters(path: Path) -> str:
    with Image.open(path) as picture:
        return str(picture.info["parameters"])


def painted(
    model: Path, critical_step: int, area: int = 100, adaptive: bool = False, **more: Any
) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(model)
    lazyneg.apply(pipe, critical_step, area=area, adaptive=adaptive)
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


def test_the_version_is_told_without_a_command() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"lazyneg {lazyneg.__version__}\n")


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
    delayed = f"{prompts}{last}, LazyNeg critical step: 2, LazyNeg version: {lazyneg.__version__}"
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
        "LazyNeg version": lazyneg.__version__,
    }


@pytest.mark.parametrize(("area", "adaptive"), [(20, False), (100, True), (20, True)])
def test_area_and_adaptive(model: Path, tmp_path: Path, area: int, adaptive: bool) -> None:
    options = ["--area", area, *(["--adaptive"] if adaptive else [])]
    compare(*DEMO, *options, "--model", model, "--output", tmp_path)
    made = pixels(tmp_path / "delayed.png")
    assert np.array_equal(made, painted(model, 2, area, adaptive))
    assert (f"LazyNeg area: {area}%" in parameters(tmp_path / "delayed.png")) is (area < 100)
    assert ("LazyNeg adaptive: True" in parameters(tmp_path / "delayed.png")) is adaptive
    again = tmp_path / "again"
    compare("--from", tmp_path / "delayed.png", "--model", model, "--output", again)
    assert np.array_equal(pixels(again / "delayed.png"), made)
    everywhere = ["--area", 100, "--no-adaptive"]
    source = tmp_path / "delayed.png"
    compare("--from", source, *everywhere, "--model", model, "--output", again)
    assert np.array_equal(pixels(again / "delayed.png"), painted(model, 2))


def test_the_pairs_of_the_article(model: Path, tmp_path: Path) -> None:
    embedding = tmp_path / "EasyNegativeV2.pt"
    vector = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    torch.save({"EasyNegativeV2": vector}, embedding)
    source = ROOT / "examples" / "diffusers" / "article.txt"
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
        ([*DEMO, "--steps", "0"], "'--steps': 0; allowed: 1 to 10000"),
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


def test_out_of_memory_on_the_cpu(model: Path, tmp_path: Path) -> None:
    large = LAST.replace("32x16", "99992x99992")
    source = start(tmp_path, "girl", last=large)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limits[1]))
    try:
        result = compare("--from", source, "--model", model, "--output", tmp_path, *SIZE[-2:])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert result.exit_code == 1
    assert "out of memory on cpu: try a smaller --width" in result.stderr


def test_a_picture_without_infotext(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    result = compare("--from", tmp_path / "bare.png")
    assert "there is no infotext in" in result.stderr


LAST = "Steps: 4, Sampler: Euler a, CFG scale: 7, Seed: 7, Size: 32x16"


def start(folder: Path, prompt: str, negative: str = "hat", last: str = LAST) -> Path:
    path = folder / "start.txt"
    path.write_text(f"{prompt}\nNegative prompt: {negative}\n{last}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("tag", "settings"),
    [
        ("<lazyneg:1>", ["--critical-step", "1"]),
        ("<lazyneg:25%:50%>", ["--critical-step", "1", "--stop-step", "2"]),
        ("<lazyneg:0>", ["--critical-step", "0"]),
    ],
)
def test_a_tag_means_what_it_means_in_the_webui(
    model: Path, tmp_path: Path, tag: str, settings: list[str]
) -> None:
    other = f"{LAST}, LazyNeg critical step: 3, LazyNeg early prompt: blurry"
    tagged, plain = tmp_path / "tagged", tmp_path / "plain"
    source = start(tmp_path, f"girl {tag}", last=other)
    result = compare("--from", source, "--model", model, "--output", tagged, "--device", "cpu")
    assert result.stderr.count("Note: ") == 0
    compare("--from", start(tmp_path, "girl", last=other), *settings, "--model", model, "--output",
            plain, "--device", "cpu")  # fmt: skip
    for path in plain.iterdir():
        assert np.array_equal(pixels(path)[-16:], pixels(tagged / path.name)[-16:])
    delayed = parse(parameters(tagged / "delayed.png"))
    assert delayed.prompt == f"girl {tag}"
    assert delayed.parameters["LazyNeg early prompt"] == "blurry"
    # Without a delay there must be no tag.
    for name in ("plain", "empty"):
        assert parse(parameters(tagged / f"{name}.png")).prompt == "girl"
    again = tmp_path / "again"
    compare(
        "--from", tagged / "delayed.png", "--model", model, "--output", again, "--device", "cpu"
    )
    for path in tagged.iterdir():
        assert np.array_equal(pixels(path), pixels(again / path.name))
        assert parameters(path) == parameters(again / path.name)


def test_a_tag_decides_in_place_of_options(model: Path, tmp_path: Path) -> None:
    result = compare("girl <lazyneg:1>", "--negative", "hat", "--critical-step", "3", *SIZE,
                     "--model", model, "--output", tmp_path)  # fmt: skip
    assert "it decides in place of the options for steps" in result.stderr
    assert "LazyNeg critical step: 1" in parameters(tmp_path / "delayed.png")


@pytest.mark.parametrize(
    ("prompt", "negative", "told"),
    [
        ("girl <LAZYNEG:1>", "hat", "<LAZYNEG:1> in the prompt is not a tag; allowed: <lazyneg:5>"),
        ("girl", "hat <lazyneg:1>", "<lazyneg:1> in the negative prompt does nothing; allowed: in"),
        ("girl <lazyneg:x>", "hat", "cannot read the tag <lazyneg:x>; allowed: <lazyneg:5>"),
        ("<lazyneg:1> girl <lazyneg:2>", "hat", "more than one tag: <lazyneg:1> <lazyneg:2>; all"),
    ],
)
def test_what_is_wrong_with_a_tag_is_told_and_written(
    model: Path, tmp_path: Path, prompt: str, negative: str, told: str
) -> None:
    source = start(tmp_path, prompt, negative, f"{LAST}, LazyNeg critical step: 2")
    result = compare("--from", source, "--model", model, "--output", tmp_path, "--device", "cpu")
    assert result.exit_code == 0
    assert f"Note: Lazy Negative ignores a tag: {told}" in result.stderr
    made = parse(parameters(tmp_path / "delayed.png"))
    assert (made.prompt, made.negative) == (prompt, negative)
    assert made.parameters["LazyNeg error"].startswith(told)
    assert made.parameters["LazyNeg critical step"] == "2"


@pytest.mark.parametrize(
    ("stored", "options", "written"),
    [
        ("5", ["--unit", "percent"], ["25%", None]),
        ("5, LazyNeg stop step: 15", ["--unit", "percent"], ["25%", "75%"]),
        ("25%, LazyNeg stop step: 60%", ["--unit", "steps"], ["5", "12"]),
        ("25%", ["--unit", "percent"], ["25%", None]),
        ("5, LazyNeg stop step: 15", ["--unit", "percent", "--stop-step", "50"], ["25%", "50%"]),
        (
            "5, LazyNeg stop step: 15",
            ["--unit", "percent", "--critical-step", "40"],
            ["40%", "75%"],
        ),
        ("1", ["--unit", "percent", "--steps", "3"], ["34%", None]),
        ("50%", ["--unit", "steps", "--steps", "3"], ["1", None]),
    ],
)
def test_a_stored_value_is_converted_to_the_unit(
    model: Path, tmp_path: Path, stored: str, options: list[str], written: list[str | None]
) -> None:
    last = f"{LAST.replace('Steps: 4', 'Steps: 20')}, LazyNeg critical step: {stored}"
    compare("--from", start(tmp_path, "girl", last=last), *options, "--model", model, "--output",
            tmp_path, "--device", "cpu")  # fmt: skip
    made = parse(parameters(tmp_path / "delayed.png")).parameters
    assert [made.get("LazyNeg critical step"), made.get("LazyNeg stop step")] == written


@pytest.mark.parametrize(
    ("stored", "options", "written"),
    [
        ("Euler a, Schedule type: Karras", [], ("Euler a", "Karras")),
        ("DPM++ 2M", [], ("DPM++ 2M", "Karras")),
        ("DPM++ 2M Karras", ["--schedule", "Exponential"], ("DPM++ 2M", "Exponential")),
        ("Euler, Schedule type: Simple", ["--sampler", "Euler a"], ("Euler a", "Simple")),
        ("Euler, Schedule type: KL Optimal", ["--sampler", "Euler a"], ("Euler a", None)),
        ("Euler, Schedule type: KL Optimal", ["--schedule", "Beta"], ("Euler", "Beta")),
        ("Euler, Schedule type: Karras", ["--sampler", "DDIM"], ("DDIM", None)),
        ("DDIM, Schedule type: Karras", ["--schedule", "Automatic"], ("DDIM", None)),
        ("DPM adaptive, Schedule type: Karras", ["--sampler", "Heun Beta"], ("Heun", "Beta")),
        ("Euler, Schedule type: Beta, Beta schedule alpha: 0.6", [], ("Euler", "Beta")),
    ],
)
def test_sampler_and_schedule_type(
    model: Path, tmp_path: Path, stored: str, options: list[str], written: tuple[str, str | None]
) -> None:
    source = start(tmp_path, "girl", last=LAST.replace("Euler a", stored))
    result = compare(
        "--from", source, *options, "--model", model, "--output", tmp_path, "--device", "cpu"
    )
    made = parse(parameters(tmp_path / "delayed.png")).parameters
    assert (made["Sampler"], made.get("Schedule type")) == written
    dropped = "schedule type" in result.stderr
    assert dropped == (bool(options) and written[1] is None and "--sampler" in options)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (
            LAST.replace("Euler a", "Euler, Schedule type: KL Optimal"),
            "the schedule type is 'KL Optimal'; allowed for Euler: Automatic, Uniform",
        ),
        (LAST.replace("Euler a", "DDIM, Schedule type: Karras"), "DDIM has timesteps of its own"),
        (LAST.replace("Euler a", "DPM fast"), "the sampler is 'DPM fast'; allowed: DPM++ 2M"),
        (f"{LAST}1{'0' * 4}", "Size is '32x1610000'; allowed: such as 512x768"),
        (LAST.replace("Seed: 7", "Seed: -1"), "Seed is '-1'; allowed: 0 to 18446744073709551615"),
        (
            LAST.replace("Seed: 7", f"Seed: {2**64}"),
            f"Seed is '{2**64}'; allowed: 0 to {2**64 - 1}",
        ),
        (LAST.replace("Steps: 4", "Steps: 10001"), "Steps is '10001'; allowed: 1 to 10000"),
        (LAST.replace("Steps: 4", f"Steps: 1{'0' * 5000}"), "; allowed: 1 to 10000"),
        (
            LAST.replace("CFG scale: 7", "CFG scale: x"),
            "CFG scale is 'x'; allowed: such as 7 or 7.5",
        ),
        (f"{LAST}, Clip skip: 0", "Clip skip is '0'; allowed: 1 to 12"),
        (f"{LAST}, LazyNeg critical step: x", "LazyNeg critical step is 'x'; allowed"),
    ],
)
def test_errors_of_what_a_file_says(model: Path, tmp_path: Path, last: str, told: str) -> None:
    source = start(tmp_path, "girl", last=last)
    result = compare("--from", source, "--model", model, "--output", tmp_path, "--device", "cpu")
    assert result.exit_code in (1, 2)
    assert told in " ".join(result.stderr.split())
    assert len(result.stderr) < 1000


def test_what_is_left_out_is_told(model: Path, tmp_path: Path) -> None:
    last = (
        f"{LAST}, Model: other, Version: v1.10.1, Denoising strength: 0.4, Beta schedule alpha: 0.7"
        f", RNG: CPU, Hires upscale: 2\nTemplate: {{girl|boy}}"
    )
    source = start(tmp_path, "girl", last=last)
    result = compare("--from", source, "--model", model, "--output", tmp_path, "--device", "cpu")
    assert (
        f"Note: {source}: left out, as it is not painted: Denoising strength '0.4', "
        "Beta schedule alpha '0.7', Hires upscale '2'\n"
    ) in result.stderr
    assert "left out, as it comes after the parameters: 'Template: {girl|boy}'" in result.stderr


@pytest.mark.parametrize("seed", [0, 1125899906842624123, 2**63, 2**64 - 1])
@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE"])
def test_seeds_as_large_as_torch_takes(
    model: Path, tmp_path: Path, seed: int, sampler: str
) -> None:
    large = ["--seed", seed, "--sampler", sampler, "--model", model]
    compare(*DEMO, *large, "--output", tmp_path / "first")
    source = tmp_path / "first" / "delayed.png"
    assert f"Seed: {seed}," in parameters(source)
    result = compare(
        "--from", source, "--model", model, "--output", tmp_path / "again", "--device", "cpu"
    )
    assert result.exit_code == 0
    assert np.array_equal(pixels(tmp_path / "again" / "delayed.png"), pixels(source))


RUN = """
import json, sys
from lazyneg.cli import app

errors = sys.stdout.errors, sys.stderr.errors
failed = 0
for number, command in enumerate(json.loads(sys.argv[1])):
    sys.stdout.reconfigure(errors=errors[0])
    sys.stderr.reconfigure(errors=errors[1])
    try:
        app(command)
    except SystemExit as end:
        failed |= bool(end.code) << number
sys.exit(failed)
"""
"""Commands in one process, each with the streams as they were. Tells which ones failed."""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp1252:strict", "utf-16"])
def test_no_output_encoding_ends_a_run(model: Path, tmp_path: Path, encoding: str) -> None:
    folder = tmp_path / "\u51fa\u529b"
    commands = (
        ["compare", "\u5973\u306e\u5b50", "--negative", "\U0001f453", *SIZE, "--output", folder],
        ["sweep", "--prompt", "\u5973", "--negative", "\U0001f453", "--seeds", "0", "--steps", "2",
         "--width", "32", "--height", "16", "--critical-steps", "0", "--output", folder],
        ["compare", "\u5973", "--negative", "hat", "--sampler", "\u5973", "--output", folder],
    )  # fmt: skip
    said = json.dumps([[*map(str, command), "--model", str(model)] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUN, said],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0b100
    names = {path.name for path in folder.iterdir()}
    assert {"plain.png", "delayed.png", "empty.png", "compare.png", "index.html"} <= names
    assert parameters(folder / "plain.png").startswith("\u5973\u306e\u5b50\n")


def test_bytes_that_are_no_text_are_refused(model: Path) -> None:
    result = compare("girl \udce9", "--negative", "hat", *SIZE, "--model", model)
    assert result.exit_code == 2
    assert "'girl \\udce9'; allowed: text in UTF-8" in result.stderr


def test_a_scheduler_that_the_webui_does_not_have_is_told(model: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(model)
    pipe.scheduler = EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="leading", use_karras_sigmas=True
    )
    pipe.save_pretrained(tmp_path / "leading")
    result = compare(*DEMO, "--model", tmp_path / "leading", "--output", tmp_path)
    assert "Sampler: EulerDiscreteScheduler, CFG" in parameters(tmp_path / "delayed.png")
    assert "the WebUI has no sampler like this model's EulerDiscreteScheduler" in result.stderr
    again = tmp_path / "again"
    source = tmp_path / "delayed.png"
    compare("--from", source, "--model", tmp_path / "leading", "--output", again, "--device", "cpu")
    assert np.array_equal(pixels(again / "delayed.png"), pixels(source))
