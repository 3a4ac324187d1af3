"""`lazyneg sweep` as it is called."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from lazyneg.cli import app
from lazyneg.painting import metadata

ROOT = Path(__file__).parents[2]
BASE = ["--prompt", "girl", "--negative", "glasses, hat", "--steps", "4", "--device", "cpu"]
SMALL = [*BASE, "--width", "32", "--height", "16", "--seeds", "0-4", "--batch-size", "2",
         "--critical-steps", "0,2,9", "--stop-steps", "never,2,3"]  # fmt: skip


def sweep(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)], catch_exceptions=False)


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, "-m", "lazyneg", "sweep", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=pipe,
        stderr=pipe,
        text=True,
        # A shell's jobs in the background ignore interrupts, and would hand that on.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def tree(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def options(model: Path, clip_folder: Path) -> list[object]:
    detector = ["--detector", f"clip:{clip_folder}", "--threshold", "0.3"]
    return [*SMALL, "--model", model, *detector, "--region", "0,0,.5,.5"]


@pytest.fixture(scope="module")
def made(options: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    result = sweep(*options, "--output", folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(folder / "index.html")
    assert "girl, without glasses, hat (hat): " in result.stdout
    return folder


def test_writes_pictures_sheets_tables_plots_and_pages(made: Path) -> None:
    names = tree(made)
    files = {"pictures.csv", "summary.csv", "report.md", "index.html"}
    assert {name for name in names if "/" not in name} == files
    # No negative, from 0, 2, 0 until 2, 0 until 3, 2 until 3; from 9 is the first of them.
    assert len([name for name in names if name.startswith("pictures/")]) == 6 * 5
    # One for each object that the negative prompt names.
    assert len([name for name in names if name.startswith("sheets/")]) == 2


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.parametrize("begun", [False, True])
def test_two_processes_write_the_same_bytes_as_one(
    made: Path, options: list[object], tmp_path: Path, begun: bool
) -> None:
    if begun:
        (tmp_path / "pictures").mkdir()
        for number, path in enumerate(sorted((made / "pictures").iterdir())):
            if number % 3:
                whole = path.read_bytes()
                half = whole[: len(whole) // 2]
                (tmp_path / "pictures" / path.name).write_bytes(whole if number % 2 else half)
    process = start(*options, "--output", tmp_path, launcher=TWO)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert stdout.splitlines()[-1] == str(tmp_path / "index.html")
    # One process tells, for both.
    assert stdout.count("girl, without glasses, hat (hat)") == 1
    assert "30/30" in stderr
    assert tree(tmp_path) == tree(made)


def test_when_a_process_fails_the_other_says_so(options: list[object], tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("")
    process = start(*options, "--output", tmp_path, launcher=TWO)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Error: [Errno 20] Not a directory" in stderr
    assert "RuntimeError" not in stderr


def test_goes_on_after_an_interrupt(made: Path, options: list[object], tmp_path: Path) -> None:
    process = start(*options, "--output", tmp_path)
    pictures = tmp_path / "pictures"
    while process.poll() is None and not any(pictures.glob("*.png")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "The same command goes on from here." in stderr
    assert "Traceback" not in stderr
    before = tree(tmp_path)
    assert 0 < len(before) < 30
    assert set(before) < set(tree(made))
    assert sweep(*options, "--output", tmp_path).exit_code == 0
    assert tree(tmp_path) == tree(made)


def test_a_dry_run_counts_and_writes_nothing(
    made: Path, options: list[object], tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    result = sweep(*options, "--output", folder, "--dry-run")
    assert result.stdout == (
        "prompts 1, negatives 1, settings 6 (3 skipped: they stop before they begin), seeds 5\n"
        "pictures 30: 0 finished, 30 to make in 18 batches of up to 2, 42 denoiser steps\n"
    )
    assert not folder.exists()
    assert "30 finished, 0 to make in 0 batches" in (
        sweep(*options, "--output", made, "--dry-run").stdout
    )


def test_without_a_detector_it_measures_change_alone(model: Path, tmp_path: Path) -> None:
    result = sweep(*SMALL, "--model", model, "--output", tmp_path)
    assert "no detector knows an object of the negative prompt" in result.stdout
    assert not (tmp_path / "plots").exists()
    assert (tmp_path / "index.html").exists()


def test_a_folder_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = sweep(*SMALL, "--model", model, "--output", tmp_path / "file")
    assert result.exit_code == 2
    assert f"'{tmp_path / 'file'}' is a file" in result.stderr
    result = sweep(*SMALL, "--model", model, "--output", tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert f"Error: [Errno 20] Not a directory: '{tmp_path / 'file' / 'below'}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "5-3"], "'5-3'; allowed: whole numbers and ranges"),
        (["--seeds", "one"], "'one'; allowed"),
        # Each of these would take years, or more memory than there is.
        (["--seeds", "0-999999,1-5"], "'1-5'; allowed: whole numbers and ranges"),
        (["--seeds", ",".join(["0-999999"] * 5000)], "and at most 1000000 in all"),
        (["--seeds", "0-199999"], "1800000 pictures; allowed: at most 1000000, of all prompts"),
        (["--steps", "1000000000"], "'--steps': 1000000000; allowed: 1 to 10000"),
        (["--width", "8000000", "--height", "8"], "'--width': 8000000; allowed: 8 to 99999"),
        (["--critical-steps", "0,\u0665"], "'\u0665'; allowed: whole numbers from 0"),
        (["--region", "0,0,.5,.\u0665"], "'0,0,.5,.\u0665'; allowed: left,top,right,bottom"),
        (["--seeds", str(2**64)], "such as 0-63 or 1,5,8-10, up to 18446744073709551615"),
        (["--prompt", "girl <lazyneg:5>"], "'girl <lazyneg:5>' has a <lazyneg:…> tag; allowed: te"),
        (["--negative", "ugly <LAZYNEG:5>"], "'ugly <LAZYNEG:5>' has a <lazyneg:…> tag; allowed"),
        (["--prompt", "girl \udce9"], "'girl \\udce9'; allowed: text in UTF-8"),
        (["--critical-steps", "0,2.5"], "'2.5'; allowed: whole numbers from 0"),
        (["--critical-steps", "-1"], "'-1'; allowed"),
        (["--critical-steps", "101", "--unit", "percent"], "critical_step is 101 percent"),
        (["--stop-steps", "0"], "'0'; allowed: never, and whole numbers from 1"),
        (["--areas", "0"], "'0'; allowed: whole numbers from 1"),
        (["--areas", "20,101"], "area is 101; allowed: whole numbers from 1 to 100"),
        (["--adaptive", "perhaps"], "'perhaps' is not one of 'no', 'yes', 'both'"),
        (["--critical-steps", "5", "--stop-steps", "3,5"], "'3,5' is never after '5'"),
        (["--prompt", " "], "a text is empty"),
        (["--width", "64"], "give both or none"),
        (["--batch-size", "0"], "'--batch-size': 0; allowed: 1 or more"),
        (["--threads", "0"], "'--threads': 0; allowed: 1 to 1024"),
        (["--steps", "-3"], "'--steps': -3; allowed: 1 to 10000"),
        (["--threshold", "2"], "'--threshold': 2.0; allowed: 0 to 1"),
        (["--threshold", "nan"], "'--threshold': nan; allowed: 0 to 1"),
        (["--embedding", "nowhere.pt"], "'nowhere.pt' does not exist"),
        (["--config", "nowhere"], "'nowhere' does not exist"),
        (["--steps", "3", "--critical-steps", "3,40"], "'3,40' and 'never' leave none of 3 steps"),
        (["--unit", "percent", "--critical-steps", "100"], "'100' and 'never' leave none of"),
        (
            ["--unit", "percent", "--critical-steps", "0", "--stop-steps", "4"],
            "--critical-steps and --stop-steps: '0' and '4' leave none of",
        ),
        (["--region", "0,0,1,1"], "'0,0,1,1'; allowed: left,top,right,bottom"),
        (["--region", "0,0,1,0.999"], "at most nine tenths"),
        # A blank for regular expressions, and none for numbers.
        (["--region", "0,0,1,\x1f1"], "'0,0,1,\\x1f1'; allowed: left,top,right,bottom"),
        (["--config", "."], ". needs a --model besides"),
        (["--region", ".5,0,.2,1"], "allowed: left,top,right,bottom"),
        (["--model", "nowhere"], "there is no file or folder nowhere"),
        (["--guidance-scale", "nan"], "nan; allowed: 0 to 1000"),
        (["--guidance-scale", "-1"], "-1.0; allowed: 0 to 1000"),
        (["--guidance-scale", "1"], "1; allowed: more than 1, as there is no negative prompt"),
        (
            ["--width", "8", "--height", "8", "--region", "0,0,1,0.9"],
            "'0,0,1,0.9' leaves no pixel of 8x8",
        ),
        (["--steps", "1001", "--dry-run"], "cannot be larger than"),
        (["--device", "nope"], "the device is 'nope'; allowed: cpu, and cuda"),
    ],
)
def test_errors_name_what_is_wrong(arguments: list[str], message: str) -> None:
    result = sweep(*BASE, *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "yolo:x"], "'yolo:x'; allowed: clip:FOLDER or owl:FOLDER"),
        (["--detector", "clip:nowhere"], "nowhere is not a model of transformers"),
        (["--object", "glasses"], "give a --detector that finds it"),
        (["--sampler", "Guess"], "the sampler is 'Guess'; allowed: DPM++ 2M"),
        (["--schedule", "Karras"], "the schedule type is 'Karras', but DDIM has timesteps of its"),
        (["--width", "33", "--height", "16"], "divisible by 8"),
    ],
)
def test_errors_of_models_and_detectors(
    model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = sweep(*BASE, "--model", model, "--output", tmp_path / "new", *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())


def test_seeds_as_large_as_torch_takes(model: Path, tmp_path: Path) -> None:
    seeds = [2**64 - 2, 2**64 - 1, 0, 2**63]
    result = sweep(*SMALL, "--model", model, "--output", tmp_path, "--seeds",
                   f"{seeds[0]}-{seeds[1]},0,{seeds[3]}")  # fmt: skip
    assert result.exit_code == 0
    table = pd.read_csv(tmp_path / "pictures.csv", dtype=str)
    assert list(table.seed[:4]) == list(map(str, seeds))
    assert len({(tmp_path / "pictures" / name).read_bytes() for name in table.picture[:4]}) == 4


def test_a_schedule_type_is_painted_and_told(model: Path, tmp_path: Path) -> None:
    options = [*SMALL, "--model", model, "--output", tmp_path, "--sampler", "Heun"]
    result = sweep(*options, "--schedule", "Karras", "--dry-run")
    # Steps of the sampler, though its loop has more.
    assert "30 to make in 18 batches of up to 2, 42 denoiser steps" in result.stdout
    assert sweep(*options, "--schedule", "Karras").exit_code == 0
    for path in (tmp_path / "pictures").iterdir():
        assert "Sampler: Heun, Schedule type: Karras," in str(metadata.infotext_of(path))
    assert "Schedule type Karras" in (tmp_path / "index.html").read_text("utf-8")
