"""One pipeline call with the negative prompt delayed, for any pipeline.

The pipeline's own code runs twice: first with the negative prompt blanked and only up to the
first step of the scheduler, then as the user asked. What the denoiser receives differently in the
two is the negative prompt in the form that this pipeline gives it, whatever that is; while the
negative prompt is not to act, the denoiser gets the blank form instead.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lazyneg.core.settings import Settings
from lazyneg.diffusers.blank import blanked, bound, has_negative, negative_names
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path, leaves, replaced, same
from lazyneg.diffusers.observe import observing, schedulers, watched
from lazyneg.diffusers.rehearsal import Rehearsal, rehearse

logger = logging.getLogger("lazyneg")

_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def delayed_call(
    pipe: Any,
    call: Callable[..., Any],
    settings: Settings,
    early_prompt: str | None,
    args: Any,
    kwargs: Any,
) -> Any:
    """Calls a pipeline with the negative prompt acting only within the settings' window.

    Args:
        pipe: The pipeline.
        call: Its class's own ``__call__``.
        settings: When the negative prompt acts.
        early_prompt: Negative prompt of the other steps; ``None`` passes none at all.
        args: The user's positional arguments.
        kwargs: The user's named arguments.

    Returns:
        What the pipeline returns.

    Raises:
        DelayError: If the call cannot be delayed exactly.
    """
    if not settings.delays():
        return call(pipe, *args, **kwargs)
    arguments = bound(call, (pipe, *args), kwargs)
    del arguments[next(iter(arguments))]
    if (state := arguments.get("state")) is not None:
        # A modular pipeline goes on from where another ended.
        text, encoded = negative_names(state.values)
        for name in (*text, *encoded):
            arguments.setdefault(name, state.values[name])
    if not has_negative(arguments) and not early_prompt:
        _say_once(pipe, logging.INFO, "no negative prompt is given: there is nothing to delay")
        return call(pipe, *args, **kwargs)
    if _guidance_off(pipe, arguments):
        _say_once(
            pipe,
            logging.WARNING,
            "guidance is off, the negative prompt has no effect: there is nothing to delay",
        )
        return call(pipe, *args, **kwargs)
    blank = blanked(arguments, early_prompt)
    with watched(pipe):
        rehearsal = rehearse(pipe, call, arguments, blank)
        run = _Run(pipe, settings, rehearsal)
        with observing(run):
            return call(pipe, *args, **kwargs)


def _say_once(pipe: Any, level: int, message: str) -> None:
    said = _said.setdefault(pipe, set())
    if message not in said:
        said.add(message)
        logger.log(level, message)


def _guidance_off(pipe: Any, arguments: dict[str, Any]) -> bool:
    """Whether the pipeline itself would say that it does not use the negative prompt."""
    true_cfg_scale = arguments.get("true_cfg_scale")
    if isinstance(true_cfg_scale, (int, float)) and true_cfg_scale <= 1:
        return True
    if not isinstance(getattr(type(pipe), "do_classifier_free_guidance", None), property):
        return False
    # Pipelines keep arguments as attributes of the same name with an underscore.
    stand_in = copy.copy(pipe)
    vars(stand_in).update({f"_{name}": value for name, value in arguments.items()})
    try:
        return stand_in.do_classifier_free_guidance is False
    except Exception:
        # It depends on something that only the call sets: then the call itself will show.
        return False


@dataclass
class _Known:
    """What a denoiser call of the first step got of the negative prompt, where calls differ."""

    given: dict[Path, Any]
    blank: dict[Path, Any]

    def blank_of(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        """The blank form of ``got`` if that is what this call was given, else ``None``."""
        if all(path in self.given and same(leaf, self.given[path]) for path, leaf in got.items()):
            return {path: self.blank[path] for path in got}
        return self._rows_of(got)

    def _rows_of(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        """As :meth:`blank_of` where ``got`` has some of the rows of the batch only.

        So it is when a callback ends guidance midway.
        """
        if got.keys() - self.given.keys():
            return None
        leafs: list[tuple[Any, Any, Any]] = [
            (leaf, self.given[path], self.blank[path]) for path, leaf in got.items()
        ]
        if not all(
            isinstance(leaf, torch.Tensor) and leaf.ndim for three in leafs for leaf in three
        ):
            return None
        count, known_count = len(leafs[0][0]), len(leafs[0][1])
        if not all(
            (len(leaf), len(given), len(blank)) == (count, known_count, known_count)
            for leaf, given, blank in leafs
        ):
            return None
        rows = []
        for row in range(count):
            alike = [
                index
                for index in range(known_count)
                if all(same(leaf[row], given[index]) for leaf, given, _ in leafs)
            ]
            # Equal rows must have the same blank form, or there is no telling which one it is.
            if not alike or not all(
                same(blank[index], blank[alike[0]]) for index in alike for _, _, blank in leafs
            ):
                return None
            rows.append(alike[0])
        return {path: self.blank[path][rows] for path in got}


class _Run:
    """Observer of the user's call."""

    def __init__(self, pipe: Any, settings: Settings, rehearsal: Rehearsal) -> None:
        self.pipe = pipe
        self.settings = settings
        self.rehearsal = rehearsal
        # Most pipelines have but one, and may have been given its timesteps.
        self.scheduler = schedulers(pipe)[0]
        self.in_loop = False
        self.first_step = True
        self.step = 0
        self.calls = 0
        """Calls of denoisers so far in this step."""
        self.stepping = False
        """Whether a scheduler stepped since the last call."""
        self.early: bool | None = None
        """Whether the blank negative prompt acts in this step; ``None`` while not known."""
        self.denoisers = {id(made.module) for made in rehearsal.calls}
        self.known: list[_Known] = []
        self.paths: set[Path] = set()
        """Where in the arguments of any denoiser the user's call and the blank one differ."""

    def scheduled(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.step = self.calls = 0
        self.stepping = False
        self.early = None
        self.in_loop = self.in_loop or not self.rehearsal.progress_bar

    def looping(self, owner: Any) -> None:
        self.in_loop = True

    def stepped(self, scheduler: Any) -> None:
        self.stepping = self.in_loop
        if self.first_step and self.in_loop:
            self.first_step = False
            self._conclude()

    def called(
        self, module: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if not self.in_loop or id(module) in self.rehearsal.setup:
            return forward(*args, **kwargs)
        if self.stepping:
            # Several schedulers may step one after the other: that is one step.
            self.step += 1
            self.calls = 0
            self.stepping = False
            self.early = None
        steps = self._steps()
        if self.early is None:
            self.early = not self.settings.window(steps).active(self.step)
        call = self.calls
        self.calls += 1
        if self.first_step:
            return self._first(call, module, forward, args, kwargs)
        known = id(module) in self.denoisers
        # Past the last step come checkers and the like.
        if self.early and (known or self.step < steps):
            args, kwargs = self._blanked(call, module, args, kwargs)
        return forward(*args, **kwargs)

    def _first(
        self,
        call: int,
        module: torch.nn.Module,
        forward: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """A call of the first step: seen in the rehearsal, with a blank negative prompt."""
        rehearsed = self.rehearsal.calls
        if call >= len(rehearsed) or rehearsed[call].module is not module:
            raise self._calls_differ()
        blank_call = rehearsed[call]
        given = dict(leaves((args, kwargs)))
        blank = blank_call.given
        if given.keys() != blank.keys():
            raise self._calls_differ()
        changed = {path for path, leaf in given.items() if not same(leaf, blank[path])}
        self.paths |= changed
        self.known.append(_Known(given, blank))
        if not self.early:
            return forward(*args, **kwargs)
        if self.rehearsal.reusable:
            return blank_call.output
        args, kwargs = replaced((args, kwargs), {path: blank[path] for path in changed})
        return forward(*args, **kwargs)

    def _calls_differ(self) -> DelayError:
        return DelayError(
            f"{type(self.pipe).__name__} calls its denoiser in another way with an empty negative "
            "prompt: the negative prompt cannot be delayed"
        )

    def _conclude(self) -> None:
        """Ends the first step: from here on only what differs is of interest."""
        if len(self.known) != len(self.rehearsal.calls):
            raise self._calls_differ()
        self.rehearsal.calls.clear()
        for known in self.known:
            for leafs in (known.given, known.blank):
                for path in leafs.keys() - self.paths:
                    del leafs[path]
        if not self.paths:
            _say_once(
                self.pipe,
                logging.WARNING,
                "the negative prompt makes no difference to the denoiser, as if guidance were "
                "off or the prompt empty: there is nothing to delay",
            )

    def _blanked(
        self, call: int, module: torch.nn.Module, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        """The arguments of a call with a blank negative prompt."""
        got = {path: leaf for path, leaf in leaves((args, kwargs)) if path in self.paths}
        if not got:
            later = call >= len(self.known) and not self.paths
            if later or id(module) not in self.denoisers:
                raise DelayError(
                    f"step {self.step} calls {type(module).__name__} in a way that step 0 did "
                    "not, so that the negative prompt may come in there: it cannot be delayed "
                    "where guidance, or a second model, begins only within the delay"
                )
            return args, kwargs
        # The call in the same place of the first step tells calls with equal texts apart.
        same_place = (known.blank_of(got) for known in self.known[call : call + 1])
        blank = next(same_place, None) or self._blank_anywhere(got)
        if blank is None:
            raise DelayError(
                f"step {self.step} gives {type(module).__name__} a text that was not there in "
                "step 0, from the pipeline or a callback: the negative prompt cannot be delayed"
            )
        news = {path: leaf for path, leaf in blank.items() if leaf is not got[path]}
        args, kwargs = replaced((args, kwargs), news)
        return args, kwargs

    def _blank_anywhere(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        found = [blank for known in self.known if (blank := known.blank_of(got)) is not None]
        agree = all(same(blank[path], found[0][path]) for blank in found for path in got)
        return found[0] if found and agree else None

    def _steps(self) -> int:
        """Iterations of the denoising loop."""
        if self.rehearsal.announces_steps:
            announced: int = vars(self.pipe)["_num_timesteps"]
            return announced
        begin = getattr(self.scheduler, "begin_index", None) or 0
        return len(self.scheduler.timesteps) - begin
