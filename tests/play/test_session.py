"""The three pictures are those of `lazyneg compare`, and each is made again as the page says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lazyneg.cli import app
from lazyneg.play import recipes
from lazyneg.play.session import RequestError, Row, Session
from tests.play.conftest import HOSTILE, asked

CASES = [
    {},
    {"critical_step": 0},
    {"critical_step": 50, "unit": "percent", "stop_step": 70},
    {"area": 20, "adaptive": True, "critical_step": 1},
    {"sampler": "Euler a", "early_prompt": "blurry"},
    # Two evaluations a step, and noise that does not come from the pipeline's generators.
    {"sampler": "DPM++ SDE", "critical_step": 2, "stop_step": 4},
    # One step more than asked for.
    {"sampler": "PLMS", "adaptive": True, "critical_step": 0},
    {"prompt": HOSTILE, "negative": f"--help {HOSTILE}\n  two  \nlines", "seed": 2**53 - 1},
    {"prompt": "--version", "guidance": 7.25},
]


def painted_by_command(text: str, folder: Path) -> dict[str, Any]:
    """What the command line paints, by the names of the files."""
    _, *words = shlex.split(text)
    at = words.index("--")
    words[at:at] = ["--output", str(folder)]
    CliRunner().invoke(app, words, catch_exceptions=False)
    return {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def check(session: Session, row: Row, folder: Path) -> None:
    compared = painted_by_command(recipes.command(session, row), folder / "command")
    for name, painted in (
        ("plain", row.always), ("empty", row.without), ("delayed", row.delayed)
    ):  # fmt: skip
        assert np.array_equal(compared[name], np.asarray(painted.picture)), name
    names: dict[str, Any] = {}
    exec(recipes.python(session, row), names)
    assert np.array_equal(names["image"], np.asarray(row.delayed.picture))
    source = folder / "infotext.txt"
    source.write_text(str(row.delayed.infotext), encoding="utf-8")
    options = [f"{name}={value}" for name, value in session.options]
    again = shlex.join(["lazyneg", "compare", f"--from={source}", *options, "--"])
    assert np.array_equal(
        painted_by_command(again, folder / "infotext")["delayed"], np.asarray(row.delayed.picture)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_ways_lead_to_the_same_pictures(
    tiny: Session, tmp_path: Path, case: dict[str, Any]
) -> None:
    check(tiny, tiny.row(asked(**case)), tmp_path)


def test_with_the_embedded_model(embedded: Session, tmp_path: Path) -> None:
    check(embedded, embedded.row(asked(adaptive=True, area=10)), tmp_path)


def test_only_what_changed_is_painted(tiny: Session) -> None:
    calls: list[int] = []
    hook = tiny.painter.pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))

    def denoised(**other: Any) -> int:
        calls.clear()
        tiny.row(asked(**{"seed": 1001, **other}))
        return len(calls)

    # Six steps each, but for the three that the delayed one begins with like the one without.
    assert denoised(critical_step=3) == 6 + 6 + 3
    assert denoised(critical_step=5) == 3
    assert denoised(critical_step=2) == 4
    assert denoised(critical_step=3) == 0
    assert denoised(critical_step=3, seed=1002) == 15
    hook.remove()


def test_tells_in_which_steps_it_acted(embedded: Session) -> None:
    hat = {"prompt": "boy", "negative": "hat", "seed": 2}
    adaptive = {**hat, "steps": 8, "critical_step": 0, "area": 10, "adaptive": True}
    row = embedded.row(asked(**adaptive))
    acted = sorted(row.delayed.acted)
    # Once it stops it never begins again.
    assert acted == list(range(len(acted)))
    assert 1 < len(acted) < 7
    last = acted[-1]
    for stop_step, same in ((last + 1, True), (last, False)):
        stopped = embedded.row(asked(**adaptive, stop_step=stop_step)).delayed.picture
        assert np.array_equal(np.asarray(stopped), np.asarray(row.delayed.picture)) is same
    assert not row.always.acted


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"prompt": "  "}, "prompt is empty; allowed: any text"),
        ({"negative": ""}, "negative is empty; allowed: any text"),
        ({"prompt": None}, "prompt is empty"),
        ({"prompt": "a\0b"}, r"prompt has the character '\x00'; allowed: text in UTF-8"),
        ({"negative": "\ud800"}, r"negative has the character '\ud800'; allowed: text in UTF-8"),
        ({"prompt": "girl <lazyneg:3>"}, "<lazyneg:…> is in the prompt; allowed: texts without"),
        ({"negative": "hat <lazyneg:3>"}, "<lazyneg:3> in the negative prompt does nothing"),
        ({"seed": -1}, "seed is -1; allowed: whole numbers from 0 to 9007199254740991"),
        ({"seed": 1.5}, "seed is 1.5; allowed: whole numbers"),
        ({"seed": None}, "seed is None; allowed: whole numbers"),
        ({"steps": 151}, "steps is 151; allowed: whole numbers from 1 to 150"),
        ({"steps": True}, "steps is True; allowed: whole numbers from 1 to 150"),
        ({"steps": "6"}, "steps is '6'; allowed: whole numbers from 1 to 150"),
        ({"guidance": 31}, "guidance is 31; allowed: numbers from 0 to 30"),
        ({"guidance": float("nan")}, "guidance is nan; allowed: numbers from 0 to 30"),
        ({"sampler": "Guess"}, "the sampler is 'Guess'; allowed: DPM++ 2M"),
        ({"sampler": ["Euler"]}, "sampler is ['Euler']; allowed: a name"),
        ({"critical_step": 2.5}, "critical_step is 2.5; allowed: whole numbers"),
        ({"stop_step": 3}, "stop_step is 3; allowed: 0 (never) or more than the critical step"),
        ({"unit": "percent", "critical_step": 101}, "critical_step is 101 percent; allowed"),
        ({"area": 0}, "area is 0; allowed: whole numbers from 1 to 100"),
        ({"early_prompt": 5}, "early_prompt is 5; allowed: text"),
    ],
)
def test_what_cannot_be_painted_is_told(tiny: Session, said: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as refused:
        tiny.row(asked(**said))
    assert message in str(refused.value)


class OtherProcessor:
    """An attention processor that is not diffusers' own."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.processor(*args, **kwargs)


def test_what_cannot_be_delayed_is_told(tiny: Session) -> None:
    unet = tiny.painter.pipe.unet
    own = unet.attn_processors
    others = {name: OtherProcessor(processor) for name, processor in own.items()}
    unet.set_attn_processor(others)
    with pytest.raises(RequestError, match="UNet2DConditionModel works with OtherProcessor"):
        tiny.row(asked(seed=1003, area=10))
    assert tiny.row(asked(seed=1003)).delayed.picture.size == (32, 16)
    unet.set_attn_processor(own)


def test_notes(embedded: Session) -> None:
    assert embedded.row(asked(steps=1)).notes == ()
    long = embedded.row(asked(steps=1, prompt="girl, " * 60))
    assert long.notes == ("Prompt is too long: the model reads its first 77 tokens.",)
    unguided = embedded.row(asked(steps=1, guidance=1))
    assert unguided.notes == ("Guidance is not more than 1: a negative prompt has no effect.",)
