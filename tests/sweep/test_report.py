"""The files that a sweep leaves, on real pictures and a real, simple detector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from numpy.typing import NDArray
from PIL import Image

from lazyneg.painting.painter import Painter
from lazyneg.sweep.measuring import Looking, mse, outside, ssim
from lazyneg.sweep.plan import Grid, Plan
from lazyneg.sweep.report import markdown_text
from lazyneg.sweep.run import sweep
from lazyneg.sweep.sheets import contact_sheet

PARAMETERS = {"Steps": "3", "CFG scale": "7", "Size": "32x16"}
BOX = (0.25, 0.25, 0.75, 0.75)


class Reddish:
    """Finds red where red is stronger than green."""

    names = ("blue", "red")

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[Any]:
        means = np.array([np.asarray(image).mean((0, 1)) for image in images]) / 255
        return np.stack([means[:, 2], 0.5 + means[:, 0] - means[:, 1]], axis=1)


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    painter = Painter(model, None, [], "cpu", None)
    grid = Grid(
        ["girl", "<b>boy</b>"], ["red", "ugly"], range(18), [0, 1, 3], [0], "steps", PARAMETERS, 5
    )
    plan = Plan(grid, painter.iterations(PARAMETERS), painter.made_with())
    looking = Looking(Reddish(), {"red": ["red"], "ugly": []}, {"red": [BOX]})
    folder = tmp_path_factory.mktemp("sweep")
    sweep(plan, painter, looking, folder)
    return folder, plan


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_table_has_each_picture_with_its_measures(made: tuple[Path, Plan]) -> None:
    folder, plan = made
    table = pd.read_csv(folder / "pictures.csv", keep_default_na=False)
    # Two prompts: one reference and twice three settings each.
    assert len(table) == 2 * (1 + 2 * 3) * 18
    assert set(table.picture) == {path.name for path in (folder / "pictures").iterdir()}
    line = table[(table.prompt == "girl") & (table.setting == "from 1") & (table.seed == 4)].iloc[0]
    assert (line.negative, line.critical_step, line.stop_step) == ("red", "1", "")
    picture = pixels(folder / "pictures" / line.picture)
    reference = pixels(folder / "pictures" / plan.name(plan.paintings[0], 4))
    for name, measure in (("mse", mse), ("ssim", ssim)):
        everywhere = measure(picture, reference, outside(picture.shape, ()))
        elsewhere = measure(picture, reference, outside(picture.shape, [BOX]))
        assert float(line[name]) == pytest.approx(everywhere, rel=1e-4)
        assert float(line[f"{name}_outside"]) == pytest.approx(elsewhere, rel=1e-4)
    wanted = Reddish()([Image.open(folder / "pictures" / line.picture)])[0, 1]
    assert line["has red"] == pytest.approx(wanted, rel=1e-4)
    assert "has blue" not in table
    # Nobody knows where ugly is.
    assert set(table[table.negative == "ugly"].mse_outside) == {""}
    # From the last step on is the picture without a negative prompt.
    never = table[table.setting == "from 3"]
    assert set(map(float, never.mse)) == {0}


def test_the_page_and_the_report_show_it_all(made: tuple[Path, Plan]) -> None:
    folder, _ = made
    page = (folder / "index.html").read_text(encoding="utf-8")
    report = (folder / "report.md").read_text(encoding="utf-8")
    shown = {path.relative_to(folder).as_posix() for path in folder.glob("*/*[!g].*g")}
    shown |= {path.relative_to(folder).as_posix() for path in (folder / "sheets").iterdir()}
    shown = {name for name in shown if not name.startswith("pictures/")}
    assert len([name for name in shown if name.endswith(".png")]) == 4
    assert shown == set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", report))
    assert shown == set(re.findall(r'<img src="([^"]+)"', page))
    # Nothing is fetched from elsewhere.
    assert "://" not in page
    assert "&lt;b&gt;boy" in page
    assert "<b>boy" not in page
    assert "&lt;b&gt;boy&lt;/b&gt;, without red" in report
    assert "<b>boy" not in report
    HTMLParser().feed(page)
    present = pd.read_csv(folder / "summary.csv").query("object == 'red'").removal_seeds.iloc[0]
    assert f"{present:.0f} of 18 seeds have the object" in report
    assert "no detector knows an object of the negative prompt" in report
    assert "The rule: " in report
    assert "first 16 of 18 seeds" in report
    assert "None" not in report
    assert "nan" not in report


@pytest.mark.parametrize(
    "text",
    [
        "<b>boy</b> & &lt;girl&gt;",
        "<script>alert(1)</script>",
        "**bold**, _soft_, `code`, ~~gone~~, $x$",
        "[link](https://example.org) and ![picture](x.png)",
        "a | b \\ c \\* d",
        "# no heading",
        "<!-- no comment",
        "<lazyneg:5> \"quoted\" 'so'",
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    shown = Shown()
    shown.feed(
        MarkdownIt().enable(["strikethrough", "table"]).render(f"- **{markdown_text(text)}**")
    )
    assert "".join(shown.texts).strip() == text
    assert shown.tags == ["ul", "li", "strong"]


def test_markdown_keeps_a_text_in_its_line() -> None:
    assert markdown_text("two\n\n- lines") == "two - lines"


class Shown(HTMLParser):
    """What a page shows, and by which elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_summary_has_each_setting(made: tuple[Path, Plan]) -> None:
    table = pd.read_csv(made[0] / "summary.csv")
    assert list(table.setting) == ["from 0", "from 1", "from 3"] * 4
    last = table[(table.setting == "from 3") & (table.object == "red")]
    assert set(last.removal_value) == {0}
    assert set(last.ssim_value) == {1}
    assert (table.ssim_low <= table.ssim_value).all()
    assert (table.ssim_value <= table.ssim_high).all()


def test_a_second_run_writes_the_same_bytes(
    made: tuple[Path, Plan], painter: Painter, tmp_path: Path
) -> None:
    folder, plan = made
    pictures = folder / "pictures"
    (tmp_path / "pictures").symlink_to(pictures)
    looking = Looking(Reddish(), {"red": ["red"], "ugly": []}, {"red": [BOX]})
    sweep(plan, painter, looking, tmp_path)
    again = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(again) > 6
    for path in again:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize(
    ("present", "plots", "induction"), [(4, 0, False), (5, 1, True), (13, 1, True), (14, 1, False)]
)
def test_shares_of_a_few_seeds_are_not_drawn(
    made: tuple[Path, Plan],
    painter: Painter,
    tmp_path: Path,
    present: int,
    plots: int,
    induction: bool,
) -> None:
    folder, plan = made
    table = pd.read_csv(folder / "pictures.csv", keep_default_na=False)
    scores = table[(table.prompt == "girl") & (table.negative == "")]["has red"]
    falling = sorted(scores, reverse=True)
    looking = Looking(
        Reddish(), {"red": ["red"]}, threshold=(falling[present - 1] + falling[present]) / 2
    )
    grid = replace(plan.grid, prompts=["girl"], negatives=["red"])
    (tmp_path / "pictures").symlink_to(folder / "pictures")
    sweep(Plan(grid, plan.iterations, plan.maker), painter, looking, tmp_path)
    drawn = [path.read_text("utf-8") for path in tmp_path.glob("plots/*.svg")]
    assert len(drawn) == plots
    assert all(f"removal, of {present}" in plot for plot in drawn)
    assert any(f"induction, of {18 - present}" in plot for plot in drawn) is induction


def test_a_contact_sheet_has_pictures_in_rows_and_marks_below(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 128, 96, 3), np.uint8)
    rows = []
    for row, label in enumerate(["no negative", "from 0"]):
        paths = [tmp_path / f"{row}{column}.png" for column in range(3)]
        for column, path in enumerate(paths):
            Image.fromarray(noise[row, column]).save(path)
        rows.append((label, paths, [row == 0, False, False]))
    sheet = np.asarray(contact_sheet(rows, [5, 6, 7])).astype(int)
    height, width = sheet.shape[:2]
    for row in range(2):
        for column in range(3):
            y, x = height - (2 - row) * 137, width - (3 - column) * 100
            assert np.array_equal(sheet[y : y + 128, x : x + 96], noise[row, column])
            mark = sheet[y + 128 : y + 132, x : x + 96]
            assert (mark == (217, 95, 2)).all() == (row == 0 and column == 0)
            # Labels above and to the left.
            assert sheet[: height - 2 * 137, x : x + 96].min() < 100
        assert sheet[y : y + 128, : width - 300].min() < 100
