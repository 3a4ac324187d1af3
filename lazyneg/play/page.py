"""The page: gradio's controls round what a session paints."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import gradio as gr

from lazyneg.core.settings import BY_NAME, SLIDER_MAXIMUM, Settings, SettingsError
from lazyneg.painting.samplers import SAMPLERS
from lazyneg.play import drawing, recipes
from lazyneg.play.session import GUIDANCE, STEPS, Request, RequestError, Session

# What the page starts with, as `make demo` does.
_PROMPT = "girl eating pizza"
_NEGATIVE = "glasses"
_STEPS = 30
_GUIDANCE = 5
_CRITICAL_STEP = 3
_SEED = 7

_INTRODUCTION = """
# Lazy Negative
One prompt, three pictures: without a negative prompt, with it in all steps, and with it from the
critical step on.
"""


def serve(session: Session, host: str, port: int | None) -> gr.Blocks:
    """Serves the page of a session, until it is closed.

    Args:
        session: Who paints.
        host: Address to listen on.
        port: Port to listen on; the first free one from 7860 if not given.

    Raises:
        OSError: If there is no free port.
    """
    blocks = _page(session)
    blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        # Of fonts that are there: others would be fetched.
        theme=gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("monospace",)),
        css_paths=Path(__file__).with_name("page.css"),
        footer_links=[],
        ssr_mode=False,
    )
    return blocks


def _page(session: Session) -> gr.Blocks:
    with gr.Blocks(title="Lazy Negative", analytics_enabled=False) as blocks:
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            prompt = gr.Textbox(_PROMPT, label="Prompt", elem_id="prompt")
            negative = gr.Textbox(_NEGATIVE, label="Negative prompt", elem_id="negative")
        shown = [gr.HTML(elem_id=name) for name in ("messages", "pictures", "timeline")]
        delay = {"critical_step": _control("critical_step", value=_CRITICAL_STEP)}
        with gr.Row():
            delay |= {name: _control(name) for name in ("stop_step", "unit")}
        with gr.Row():
            delay |= {name: _control(name) for name in ("area", "adaptive", "early_prompt")}
        with gr.Row():
            steps = gr.Slider(*STEPS, _STEPS, step=1, label="Steps", elem_id="steps")
            guidance = gr.Slider(*GUIDANCE, _GUIDANCE, step=0.5, label="Guidance")
            samplers = [("The model's own", ""), *((name, name) for name in SAMPLERS)]
            sampler = gr.Dropdown(samplers, value="", label="Sampler", elem_id="sampler")
        with gr.Row(equal_height=True):
            seed = gr.Number(_SEED, precision=0, label="Seed", elem_id="seed")
            another = gr.Button("Another seed", elem_id="another")
            differences = gr.Checkbox(
                label="Differences",
                info="Show what the negative prompt changes, in place of the pictures.",
                elem_id="differences",
            )
        gr.Markdown("The delayed picture once more, without this page:")
        for name, language in (("command", "shell"), ("python", "python"), ("infotext", None)):
            with gr.Tab(name.capitalize()):
                shown.append(gr.Code(language=language, elem_id=name, wrap_lines=True))

        of_row = {
            "prompt": prompt,
            "negative": negative,
            "seed": seed,
            "steps": steps,
            "guidance": guidance,
            "sampler": sampler,
        }

        def paint(said: dict[Any, Any]) -> list[Any]:
            of_delay = {name: said[control] for name, control in delay.items()}
            try:
                asked = {name: said[control] for name, control in of_row.items()}
                row = session.row(Request(**asked, delay=of_delay))
            except RequestError as error:
                return [drawing.said([f"Not painted: {error}."], "alert"), *[gr.skip()] * 5]
            return [
                drawing.said(row.notes, "status"),
                drawing.figures(row, said[differences]),
                drawing.timeline(row),
                recipes.command(session, row),
                recipes.python(session, row),
                str(row.delayed.infotext),
            ]

        painting: dict[str, Any] = {
            "fn": paint,
            "inputs": {*of_row.values(), *delay.values(), differences},
            "outputs": shown,
            # The session refuses bad values, in words.
            "preprocess": False,
            # Of all that is asked for while one is painted, the last.
            "trigger_mode": "always_last",
            "show_progress": "minimal",
        }
        ends = [delay["critical_step"], delay["stop_step"]]
        typed = (prompt, negative, seed, delay["early_prompt"])
        moved = (differences, steps, guidance, sampler, *ends, delay["area"], delay["adaptive"])
        gr.on(
            [
                blocks.load,
                *(control.submit for control in typed),
                *(control.blur for control in typed),
                *(control.change for control in moved),
            ],
            **painting,
            api_name="paint",
        )
        another.click(lambda: random.getrandbits(32), None, seed).then(**painting)
        fitting: dict[str, Any] = {
            "inputs": [delay["unit"], steps, *ends],
            "outputs": ends,
            "preprocess": False,
            "show_progress": "hidden",
        }
        steps.change(_limited, **fitting)
        delay["unit"].input(_converted, **fitting).then(**painting)
    return blocks


def _limited(unit: str, steps: int, *amounts: int) -> list[Any]:
    """Updates of sliders, so that they go no further than the last step."""
    most = SLIDER_MAXIMUM["percent"] if unit == "percent" else steps
    return [gr.update(maximum=most, value=min(amount, most)) for amount in amounts]


def _converted(unit: str, steps: int, critical: int, stop: int) -> list[Any]:
    """Updates of sliders, so that they mean in a new unit what they meant before."""
    (before,) = {*BY_NAME["unit"].choices} - {unit}
    values = {"unit": before, "critical_step": critical, "stop_step": stop}
    with contextlib.suppress(SettingsError):
        settings = Settings.parse({"enabled": True, **values}).in_unit(unit, steps, steps)
        critical, stop = settings.critical_step, settings.stop_step
    return _limited(unit, steps, critical, stop)


def _control(name: str, **about: Any) -> Any:
    """The control of a setting of the table."""
    setting = BY_NAME[name]
    about = {
        "value": setting.default,
        "label": setting.label,
        "info": setting.help,
        "elem_id": name,
        **about,
    }
    if setting.choices:
        return gr.Radio(setting.choices, **about)
    if setting.slider is None:
        return (gr.Checkbox if setting.default is False else gr.Textbox)(**about)
    most = _STEPS if setting.in_steps else setting.maximum
    return gr.Slider(setting.minimum, most, step=1, **about)
