"""The always-on script: its controls, and where the host's life cycle reaches the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from modules import scripts
from modules.ui_components import InputAccordion

from lazyneg.core.settings import (
    BY_NAME,
    SETTINGS,
    SLIDER_MAXIMUM,
    Setting,
    Settings,
    SettingsError,
)
from lazyneg.webui import denoising, job


class LazyNegativeScript(scripts.Script):
    """The accordion in txt2img and img2img. It keeps no state of a job."""

    def title(self) -> str:
        return "Lazy Negative"

    def show(self, is_img2img: bool) -> object:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        with InputAccordion(
            BY_NAME["enabled"].default,
            label=BY_NAME["enabled"].label,
            elem_id=self.elem_id("enabled"),
        ) as enabled:
            with gr.Row():
                critical_step = self._component("critical_step")
                unit = self._component("unit")
            gr.HTML(self._timeline())
            stop_step = self._component("stop_step")
            # img2img has no hires pass; its arguments keep their places all the same.
            with gr.Row(visible=not is_img2img):
                hires = self._component("hires")
                hires_critical_step = self._component("hires_critical_step")
            early_prompt = self._component("early_prompt")
            with gr.Row():
                area = self._component("area")
                adaptive = self._component("adaptive")

        controls = {
            "enabled": enabled,
            "critical_step": critical_step,
            "unit": unit,
            "stop_step": stop_step,
            "hires": hires,
            "hires_critical_step": hires_critical_step,
            "early_prompt": early_prompt,
            "area": area,
            "adaptive": adaptive,
        }
        keys = {name: PasteKey(BY_NAME[name]) for name in controls}
        self.infotext_fields = [(controls[name], key) for name, key in keys.items()]
        self.paste_field_names = list(keys.values())
        return [controls[setting.name] for setting in SETTINGS]

    def process(self, p: Any, *args: object) -> None:
        job.start_job(p, args)

    def process_batch(self, p: Any, *args: object, batch_number: int, **kwargs: object) -> None:
        job.start_batch(p, batch_number)

    def process_before_every_sampling(self, p: Any, *args: object, **kwargs: object) -> None:
        denoising.start_pass(p)

    def postprocess_batch(self, p: Any, *args: object, **kwargs: object) -> None:
        job.end_batch(p)

    def postprocess(self, p: Any, processed: object, *args: object) -> None:
        job.end_job(p)

    def _timeline(self) -> str:
        """Where javascript/lazyneg.js draws, with what it has to know from here."""
        about = {
            "class": "lazyneg-timeline",
            "data-tab": "img2img" if self.is_img2img else "txt2img",
            "data-prefix": self.elem_id(""),
            "data-percent-maximum": SLIDER_MAXIMUM["percent"],
        }
        attributes = " ".join(f'{name}="{value}"' for name, value in about.items())
        return f"<div {attributes}></div>"

    def _component(self, name: str) -> Any:
        setting = BY_NAME[name]
        about: dict[str, Any] = {
            "label": setting.label,
            "info": setting.help,
            "value": setting.default,
            "elem_id": self.elem_id(name),
        }
        if setting.slider:
            minimum, maximum = setting.slider
            return gr.Slider(minimum=minimum, maximum=maximum, step=1, **about)
        if setting.choices:
            return gr.Radio(choices=list(setting.choices), **about)
        if isinstance(setting.default, bool):
            return gr.Checkbox(**about)
        return gr.Textbox(lines=1, **about)


class PasteKey(str):
    """Brings one control its value, in both ways the host knows.

    From a pasted infotext the host takes what it gets by calling this; to the other tab it sends
    the values of those controls whose keys the script names as text.
    """

    setting: Setting

    def __new__(cls, setting: Setting) -> PasteKey:
        key = super().__new__(cls, f"LazyNeg {setting.name}")
        key.setting = setting
        return key

    def __call__(self, params: Mapping[str, object]) -> object:
        """The value that an infotext gives; ``None`` leaves the control as it is."""
        try:
            settings = Settings.from_infotext(params)
        except SettingsError as error:
            if self.setting.name == "enabled":
                gr.Warning(f"Lazy Negative is switched off: {error}")
            settings = Settings()
        if self.setting.name == "enabled" or settings.enabled:
            return getattr(settings, self.setting.name)
        return None
