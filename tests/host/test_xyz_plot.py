"""The axes in the host's X/Y/Z plot, by the API."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Answer, WebUI, same


@pytest.fixture(scope="module")
def script(webui: WebUI) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        info
        for info in webui.get("script-info")
        if info["name"] == "x/y/z plot" and not info["is_img2img"]
    ]
    return found[0]


def plot(
    webui: WebUI,
    script: dict[str, Any],
    lazy: list[Any],
    *axes: tuple[str, str],
    **request: Any,
) -> list[Answer]:
    """One picture a cell. ``axes`` are label and values of the axes from X on."""
    arguments = [argument["value"] for argument in script["args"]]
    labels = [argument["label"] for argument in script["args"]]
    choices = script["args"][labels.index("X type")]["choices"]
    for letter, (label, values) in zip("XYZ", [*axes, ("Nothing", ""), ("Nothing", "")]):
        arguments[labels.index(f"{letter} type")] = choices.index(label)
        arguments[labels.index(f"{letter} values")] = values
    arguments[labels.index("Draw legend")] = False
    arguments[labels.index("Include Sub Images")] = True
    made = webui(lazy, script_name="X/Y/Z plot", script_args=arguments, **request)
    # The grid comes first. Each cell has an infotext of its own.
    return [Answer(made.info, [png]) for png in made.pngs[1:]]


def test_critical_step(webui: WebUI, script: dict[str, Any]) -> None:
    cells = plot(webui, script, [True, 5], ("[Lazy Negative] Critical step", "0, 2, 5, 8"))
    assert len(cells) == 4
    for cell, step in zip(cells, (0, 2, 5, 8)):
        assert same(cell, webui([True, step]))
        assert f"LazyNeg critical step: {step}" in cell.infotext


def test_ranges_and_percent(webui: WebUI, script: dict[str, Any]) -> None:
    axis = ("[Lazy Negative] Critical step", "0-100 (+50)")
    cells = plot(webui, script, [True, 5, "percent"], axis)
    assert [same(cell, webui([True, step])) for cell, step in zip(cells, (0, 4, 8))] == [True] * 3
    assert "LazyNeg critical step: 50%" in cells[1].infotext


def test_an_axis_over_a_step_switches_it_on(webui: WebUI, script: dict[str, Any]) -> None:
    cells = plot(webui, script, [False], ("[Lazy Negative] Critical step", "2, 6"))
    assert [same(cell, webui([True, step])) for cell, step in zip(cells, (2, 6))] == [True] * 2


def test_enabled_and_stop_step(webui: WebUI, script: dict[str, Any]) -> None:
    """A cell that is off carries nothing from the cell before it."""
    cells = plot(
        webui,
        script,
        [True, 3],
        ("[Lazy Negative] Enabled", "True, False, true"),
        ("[Lazy Negative] Stop step", "0, 6"),
    )
    on, stopped, off = webui([True, 3]), webui([True, 3, "steps", 6]), webui()
    expected = [on, off, on, stopped, off, stopped]
    assert [same(*pair) for pair in zip(cells, expected)] == [True] * 6
    assert ["LazyNeg" in cell.infotext for cell in cells] == [True, False, True] * 2


def test_hires(webui: WebUI, script: dict[str, Any]) -> None:
    hires = {"enable_hr": True, "hr_scale": 1.5, "steps": 6}
    hires["denoising_strength"] = 0.8
    axis = ("[Lazy Negative] Hires", "full, same, own")
    cells = plot(webui, script, [True, 3, "steps", 0, "full", 2], axis, **hires)
    for cell, choice in zip(cells, ("full", "same", "own")):
        assert same(cell, webui([True, 3, "steps", 0, choice, 2], **hires))


def test_area_and_adaptive(webui: WebUI, script: dict[str, Any]) -> None:
    cells = plot(
        webui,
        script,
        [True, 3],
        ("[Lazy Negative] Area", "20, 100"),
        ("[Lazy Negative] Adaptive", "False, True"),
    )
    cases = [(20, False), (100, False), (20, True), (100, True)]
    for cell, (area, adaptive) in zip(cells, cases):
        alone = webui([{"enabled": True, "critical_step": 3, "area": area, "adaptive": adaptive}])
        assert same(cell, alone)
        assert ("LazyNeg area: 20%" in cell.infotext) == (area == 20)
        assert ("LazyNeg acted: " in cell.infotext) == adaptive


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("Hires", "full, sometimes"),
        ("Critical step", "-3, 2"),
        ("Stop step", "2, 6"),
        ("Area", "0, 2"),
    ],
)
def test_bad_values_are_reported(
    webui: WebUI, script: dict[str, Any], axis: str, values: str
) -> None:
    cells = plot(webui, script, [True, 3], (f"[Lazy Negative] {axis}", values))
    assert sum("LazyNeg error" in cell.infotext for cell in cells) == 1


def test_a_bad_flag_refuses_the_plot(webui: WebUI, script: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="maybe"):
        plot(webui, script, [True, 3], ("[Lazy Negative] Enabled", "True, maybe"))


def test_a_plot_leaves_nothing_behind(webui: WebUI, script: dict[str, Any]) -> None:
    before = webui(), webui([True, 5])
    plot(webui, script, [True, 5], ("[Lazy Negative] Critical step", "0, 3"))
    assert same(before[0], webui())
    assert same(before[1], webui([True, 5]))
