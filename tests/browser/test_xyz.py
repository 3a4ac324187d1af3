from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.browser.conftest import Page
from tests.host.conftest import DEFAULTS, WebUI

PLOT = "#script_txt2img_xyz_plot_"


def sampler(page: Page) -> dict[str, str]:
    """What the page makes its pictures with."""
    return {
        "sampler_name": page.chosen("#txt2img_sampling"),
        "scheduler": page.chosen("#txt2img_scheduler"),
    }


def plot(page: Page, axes: dict[str, tuple[str, str]]) -> Image.Image:
    """The grid that the plot makes of small pictures, without legend."""
    page.text("#txt2img_prompt", str(DEFAULTS["prompt"]))
    page.text("#txt2img_neg_prompt", str(DEFAULTS["negative_prompt"]))
    for name in ("steps", "seed", "cfg_scale"):
        page.number(f"#txt2img_{name}", float(str(DEFAULTS[name])))
    page.pick("#txt2img_sampling", "Euler")
    page.pick("#txt2img_script_container #script_list", "X/Y/Z plot")
    page.raw.uncheck(f"{PLOT}draw_legend input")
    for axis, (label, values) in axes.items():
        page.pick(f"{PLOT}{axis}_type", label)
        page.text(f"{PLOT}{axis}_values", values)
    page.generate()
    source = page.raw.locator("#txt2img_gallery img").first.get_attribute("src")
    return Image.open(io.BytesIO(page.raw.request.get(source).body())).convert("RGB")


@pytest.mark.parametrize(
    ("values", "steps"), [("0,2,5,10", [0, 2, 5, 10]), ("0-20 (+5)", [0, 5, 10, 15, 20])]
)
def test_the_plot_draws_the_critical_steps_it_is_given(
    page: Page, server: WebUI, values: str, steps: list[int]
) -> None:
    grid = plot(page, {"x": ("[Lazy Negative] Critical step", values), "y": ("Nothing", "")})
    expected = [server(lazy=[True, step], **sampler(page)).pixels[0] for step in steps]
    shown = cells(np.asarray(grid), *expected[0].shape[:2])
    # Neo breaks a plot of one axis into several rows, and leaves the rest of the last one white.
    assert all((cell == 255).all() for cell in shown[len(steps) :])
    assert [cell.tolist() for cell in shown[: len(steps)]] == [cell.tolist() for cell in expected]
    assert (expected[0] != expected[1]).any()


def cells(grid: NDArray[np.uint8], height: int, width: int) -> list[NDArray[np.uint8]]:
    """The cells of a grid without legend, as they are read."""
    rows = np.split(grid, len(grid) // height)
    return [cell for row in rows for cell in np.split(row, row.shape[1] // width, axis=1)]


def test_the_other_axes_take_their_values_by_name(page: Page, server: WebUI) -> None:
    grid = plot(
        page,
        {
            "x": ("[Lazy Negative] Enabled", "False, True"),
            "y": ("[Lazy Negative] Stop step", "6, 7"),
        },
    )
    rows = np.split(np.asarray(grid), 2, axis=0)
    for stop, row in zip((6, 7), rows):
        off, on = np.split(row, 2, axis=1)
        assert (off == server(**sampler(page)).pixels[0]).all()
        assert (on == server(lazy=[True, 5, "steps", stop], **sampler(page)).pixels[0]).all()
