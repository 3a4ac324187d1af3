"""A guider for modular pipelines that delays the negative prompt."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ClassifierFreeGuidance
from diffusers.configuration_utils import register_to_config

from lazyneg.core.guidance import Guidance
from lazyneg.core.settings import Settings
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.rehearsal import Beginning, Rehearsal, Stop
from lazyneg.diffusers.standins import plain_class
from lazyneg.diffusers.third_row import channels_of, keeps_state

if TYPE_CHECKING:
    from diffusers.guiders.guider_utils import GuiderOutput
    from diffusers.modular_pipelines.modular_pipeline import BlockState


class LazyNegativeGuidance(ClassifierFreeGuidance):
    r"""Classifier-free guidance whose negative inputs act only from the critical step on.

    For workflows that are split, so that the text is not encoded by the pipeline that denoises.
    Where one pipeline does both, [`apply`] needs no preparation. [`learn`] what the denoiser is to
    get in the other steps before each call with another batch size or size of the picture.

    ```py
    >>> guider = LazyNegativeGuidance(guidance_scale=7.5, critical_step=5)
    >>> pipe.update_components(guider=guider)
    >>> guider.learn(pipe, prompt="girl eating pizza", negative_prompt="")
    >>> pipe(prompt="girl eating pizza", negative_prompt="wearing glasses", output="images")
    ```

    Args:
        guidance_scale (`float`, defaults to `7.5`):
            As in [`~diffusers.ClassifierFreeGuidance`], and so are the next five.
        guidance_rescale (`float`, defaults to `0.0`):
            See there.
        use_original_formulation (`bool`, defaults to `False`):
            See there.
        start (`float`, defaults to `0.0`):
            See there.
        stop (`float`, defaults to `1.0`):
            See there.
        enabled (`bool`, defaults to `True`):
            See there.
        critical_step (`int`, defaults to 5):
            First step, counted from 0, that uses the negative prompt.
        unit (`str`, defaults to `"steps"`):
            `"steps"`, or `"percent"` of the steps of the call.
        stop_step (`int`, *optional*):
            First step that no longer uses the negative prompt. Never, if not given or `0`.
        area (`int`, defaults to 100):
            Percent of the positions of the picture's latents in which the negative prompt acts.
        adaptive (`bool`, defaults to `False`):
            Whether the negative prompt acts in a picture only while what it names shows there.

    Raises:
        [`~lazyneg.core.settings.SettingsError`]: If a value is not allowed.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        guidance_scale: float = 7.5,
        guidance_rescale: float = 0.0,
        use_original_formulation: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
        critical_step: int = 5,
        unit: str = "steps",
        stop_step: int | None = None,
        area: int = 100,
        adaptive: bool = False,
    ) -> None:
        super().__init__(
            guidance_scale, guidance_rescale, use_original_formulation, start, stop, enabled
        )
        self.settings = Settings.parse(
            {
                "enabled": True,
                "critical_step": critical_step,
                "unit": unit,
                "stop_step": stop_step,
                "area": area,
                "adaptive": adaptive,
            }
        )
        self._guidances: list[Guidance] = []
        self._third_row = False
        """Whether this step also has a batch with the negative prompt beside the early one's."""
        self._denoiser: torch.nn.Module | None = None
        self._early: dict[str, Any] | None = None
        self._learning = False

    def learn(self, pipe: Any, **arguments: Any) -> None:
        r"""Learns what the denoiser gets of an empty negative prompt, or of another early one.

        Runs the pipeline up to its first denoiser call, and leaves no trace of it.

        Args:
            pipe ([`~diffusers.ModularPipeline`]):
                The pipeline with this guider.
            arguments:
                The arguments of the call to come, but for the negative prompt.

        Raises:
            [`~lazyneg.diffusers.errors.DelayError`]: If the pipeline does not ask this guider.
        """
        plain = plain_class(pipe)
        self._learning = True
        try:
            Rehearsal(Beginning(pipe, plain), plain.__call__, ((), arguments)).next([])
        except Stop as stop:
            self._early = stop.found
            return
        finally:
            self._learning = False
        raise DelayError(f"{type(pipe).__name__} calls its denoiser without asking this guider")

    def prepare_inputs(self, data: dict[str, tuple[Any, Any]]) -> list[BlockState]:
        batches: list[BlockState] = super().prepare_inputs(data)
        return self._prepared(batches)

    def prepare_inputs_from_block_state(
        self, data: BlockState, input_fields: dict[str, str | tuple[str, str]]
    ) -> list[BlockState]:
        batches: list[BlockState] = super().prepare_inputs_from_block_state(data, input_fields)
        return self._prepared(batches)

    def _prepared(self, batches: list[BlockState]) -> list[BlockState]:
        if self._learning:
            raise Stop(self, vars(batches[1]) if len(batches) > 1 else {})
        active = self.settings.window(self._num_inference_steps).active(self._step)
        if len(batches) == 1 or (active and not self.settings.chooses):
            return batches
        if self._early is None:
            raise DelayError("LazyNegativeGuidance has nothing for its first steps: use learn")
        over = self._guidances and all(guidance.over for guidance in self._guidances)
        self._third_row = active and not over
        if self._third_row:
            negative = copy.copy(batches[1])
            setattr(negative, self._identifier_key, "pred_negative")
            batches.append(negative)
        for name, early in self._early.items():
            setattr(batches[1], name, early)
        return batches

    def set_state(self, step: int, num_inference_steps: int, timestep: torch.Tensor) -> None:
        super().set_state(step, num_inference_steps, timestep)
        self._third_row = False
        if not step:
            self._guidances.clear()
            self._denoiser = None

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        super().prepare_models(denoiser)
        if not self._third_row or denoiser is self._denoiser:
            return
        if keeps_state(denoiser, {}):
            raise DelayError(
                f"caches on {type(denoiser).__name__} keep something from call to call: area and "
                "adaptive make calls of their own"
            )
        self._denoiser = denoiser

    @property
    def num_conditions(self) -> int:
        conditions: int = super().num_conditions
        return conditions + self._third_row

    def forward(
        self,
        pred_cond: torch.Tensor,
        pred_uncond: torch.Tensor | None = None,
        pred_negative: torch.Tensor | None = None,
    ) -> GuiderOutput:
        if pred_uncond is not None and pred_negative is not None:
            pred_uncond = self._chosen(pred_cond, pred_uncond, pred_negative)
        return super().forward(pred_cond, pred_uncond)

    def _chosen(
        self, cond: torch.Tensor, empty: torch.Tensor, negative: torch.Tensor
    ) -> torch.Tensor:
        assert self._denoiser is not None
        channels = channels_of(self._denoiser, empty) if self.settings.area < 100 else 1
        if not self._guidances:
            settings = self.settings
            self._guidances = [Guidance(settings.area, settings.adaptive) for _ in empty]
        rows = zip(self._guidances, cond, empty, negative, strict=True)
        return torch.stack([one.uncond(p, e, n, channels - 1) for one, p, e, n in rows])
