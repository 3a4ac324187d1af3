"""One pipeline call with the negative prompt delayed, for any pipeline.

Beside the user's call the pipeline's own code runs with the negative prompt blanked, up to each
denoiser call of the first step. What the denoiser receives differently in the two is the negative
prompt in the form that this pipeline gives it, whatever that is; while the negative prompt is not
to act, the denoiser gets the blank form instead. The denoiser is called by the user's call only.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lazyneg.core.settings import Settings
from lazyneg.diffusers.ahead import Ahead
from lazyneg.diffusers.batch import Denoising
from lazyneg.diffusers.blank import (
    Arguments,
    Early,
    Parameters,
    blanked,
    early_name,
    has_negative,
    more_pictures,
    negative_names,
)
from lazyneg.diffusers.both import form, tracked
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path, at, leaves, replaced, same
from lazyneg.diffusers.memory import Memory
from lazyneg.diffusers.rehearsal import (
    Beginning,
    DenoiserCall,
    Made,
    Randomness,
    Rehearsal,
    SetUp,
    call_arguments,
    fresh,
)
from lazyneg.diffusers.sharing import Tape
from lazyneg.diffusers.standins import Loop, is_scheduler, pipeline_stand_in, unwatch
from lazyneg.diffusers.third_row import ThirdRow

logger = logging.getLogger("lazyneg")

_said: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def delayed_call(
    pipe: Any,
    plain: type,
    settings: Settings,
    early: Early,
    args: Any,
    kwargs: Any,
    tape: Tape | None = None,
    acted: set[int] | None = None,
) -> Any:
    """Calls a pipeline with the negative prompt acting only within the settings' window.

    Args:
        pipe: The pipeline.
        plain: Its class, to which nothing was applied.
        settings: When the negative prompt acts.
        early: What takes its place in the other steps.
        args: The user's positional arguments.
        kwargs: The user's named arguments.
        tape: What this call may have in common with those before it.
        acted: Gets the steps in which the negative prompt acted in any picture, where the pictures
            tell that themselves.

    Returns:
        What the pipeline returns.

    Raises:
        DelayError: If the call cannot be delayed exactly.
    """
    call: Any = plain.__call__
    if not settings.delays():
        return _plain_call(pipe, plain, args, kwargs, tape)
    arguments = Arguments(Parameters.of(pipe, plain), args, kwargs)
    if not has_negative(arguments) and not early.prompt and not early.encoded:
        _say_once(pipe, logging.INFO, "no negative prompt is given: there is nothing to delay")
        return _plain_call(pipe, plain, args, kwargs, tape)
    blank = blanked(arguments, early)
    beginning = Beginning(pipe, plain)
    setup: list[SetUp] = []
    rehearsals = _Rehearsals(
        blank=Rehearsal(beginning, call, (blank.args, blank.kwargs), others=setup),
        given=Rehearsal(beginning, call, (args, kwargs), setup),
        setup=setup,
        more=functools.partial(Rehearsal, beginning, call, others=setup),
        arguments=blank,
    )
    why_blank_fails = functools.partial(_why_blank_fails, arguments, early)
    memory = Memory(pipe, ((args, kwargs), (blank.args, blank.kwargs)))
    denoising = _denoising(pipe, args, kwargs, tape)
    third_row = None
    if settings.chooses:
        third_row = ThirdRow(settings, denoising, set() if acted is None else acted)
    run = _Run(pipe, settings, rehearsals, memory, why_blank_fails, denoising, third_row)
    own_args, own_kwargs = call_arguments((args, kwargs))
    stand_in = pipeline_stand_in(pipe, plain, run, beginning.devices)
    run.stand_in = weakref.ref(stand_in)
    result = call(stand_in, *own_args, **own_kwargs)
    run.finish()
    return result


def _plain_call(pipe: Any, plain: Any, args: Any, kwargs: Any, tape: Tape | None) -> Any:
    if tape is None:
        return plain.__call__(pipe, *args, **kwargs)
    run = _PlainRun(_denoising(pipe, args, kwargs, tape))
    own_args, own_kwargs = call_arguments((args, kwargs))
    return plain.__call__(pipeline_stand_in(pipe, plain, run, []), *own_args, **own_kwargs)


def _denoising(pipe: Any, args: Any, kwargs: Any, tape: Tape | None) -> Denoising:
    """Who calls the denoisers in a call of a pipeline."""
    if tape is None:
        return _computed
    tape.begin(pipe, (args, kwargs))
    return tape.called


def _computed(module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
    return module(*args, **kwargs)


def _say_once(pipe: Any, level: int, message: str) -> None:
    said = _said.setdefault(pipe, set())
    if message not in said:
        said.add(message)
        logger.log(level, message)


@dataclass
class _Rehearsals:
    """Of the same call with the blank negative prompt, and as it was given."""

    blank: Rehearsal
    given: Rehearsal
    setup: list[SetUp]
    """What the user's call makes before its loop."""
    more: Callable[[tuple[Any, dict[str, Any]]], Rehearsal]
    """Makes one of the call with other arguments."""
    arguments: Arguments
    """Those with the blank negative prompt."""

    def ahead(self, module: torch.nn.Module, made: list[Made]) -> Ahead:
        """What tells of a call that follows on those ``made``."""
        more = (
            (pictures, self.more(tracked((arguments.args, arguments.kwargs))))
            for pictures, arguments in more_pictures(self.arguments)
        )
        return Ahead(module, self.blank, more, made)


def _why_blank_fails(arguments: Arguments, early: Early, failure: Exception) -> str:
    if early.encoded:
        names = ", ".join(map(early_name, early.encoded))
        return f"{names} do not fit this call, which failed: {failure!r}"
    values = arguments.by_name
    _, encoded = negative_names(values)
    given = [name for name in encoded if values[name] is not None]
    what = (
        "the negative prompt is given as embeddings, so the pipeline had to encode an empty prompt "
        "by itself"
        if given
        else f"the pipeline was called with {early.prompt!r} for negative prompt"
    )
    way_out = ", ".join(map(early_name, given or encoded))
    return f"{what}, and that failed: {failure!r}" + (
        f"; allowed: its embeddings as {way_out}" if way_out else ""
    )


@dataclass
class _Known:
    """What a denoiser call of the first step got of the negative prompt, where calls differ."""

    module: torch.nn.Module
    given: dict[Path, Any]
    blank: dict[Path, Any]
    shapes: dict[Path, Any] = field(init=False)
    """Of all tensors it got."""

    def __post_init__(self) -> None:
        self.shapes = _shapes(self.given)

    def blank_of(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        """The blank form of ``got`` if that is what this call was given, else ``None``."""
        if all(path in self.given and same(leaf, self.given[path]) for path, leaf in got.items()):
            return {path: self.blank[path] for path in got}
        return self._rows_of(got)

    def _rows_of(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        """As :meth:`blank_of` where ``got`` has other rows of the batch, each of them known.

        So it is when a callback ends guidance midway, or where views make batches.
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


def _shapes(given: dict[Path, Any]) -> dict[Path, Any]:
    return {path: leaf.shape for path, leaf in given.items() if isinstance(leaf, torch.Tensor)}


class _PlainRun:
    """Observer of a call in which nothing is delayed, but its steps may be those of others."""

    def __init__(self, denoising: Denoising) -> None:
        self.denoising = denoising
        self.loops: list[Loop] = []
        self.progress_bar = False
        """Whether a progress bar was opened, and no loop over timesteps was seen since."""

    def iterating(self) -> None:
        pass

    def iterated(self) -> None:
        pass

    def looping(self) -> None:
        self.progress_bar = True

    def scheduled(self, scheduler: Any) -> None:
        pass

    def stepped(self) -> None:
        pass

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if self.loops:
            self.progress_bar = False
        elif not self.progress_bar:
            return module(*args, **kwargs)
        return self.denoising(module, args, kwargs)

    def touching(self, module: torch.nn.Module) -> None:
        pass

    def in_context(self, context: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return context(*args, **kwargs)


class _Run(_PlainRun):
    """Observer of a call in which the negative prompt is delayed."""

    def __init__(
        self,
        pipe: Any,
        settings: Settings,
        rehearsals: _Rehearsals,
        memory: Memory,
        why_blank_fails: Callable[[Exception], str],
        denoising: Denoising,
        third_row: ThirdRow | None,
    ) -> None:
        super().__init__(denoising)
        self.pipe = pipe
        self.settings = settings
        self.rehearsals = rehearsals
        self.memory = memory
        self.why_blank_fails = why_blank_fails
        self.stand_in: Callable[[], Any]
        """Of the pipeline."""
        self.watch_again: Callable[[], None] | None = None
        """What ends that the parts of the pipeline are not watched, where they are not."""
        # Most pipelines have but one, and may have been given its timesteps.
        self.scheduler: Any = next(filter(is_scheduler, vars(pipe).values()), None)
        self.first_step = True
        self.step = 0
        self.window = settings.window(1)
        self.early = False
        """Whether the blank negative prompt acts in this step."""
        self.calls = 0
        """Calls of denoisers since this step began, or since its scheduler last stepped."""
        self.stepping = False
        """Whether a scheduler stepped since the last call."""
        self.setup: set[int] = set()
        """Ids of the modules called before the denoising loop: encoders."""
        self.made: list[Made] = []
        """Denoiser calls of the first step."""
        self.untold: str | None = None
        """Why rehearsals could not tell what a call of the first step is to get."""
        self.denoisers: set[int] = set()
        self.known: dict[int, _Known] = {}
        """By their place in the first step."""
        self.paths: set[Path] = set()
        """Where in the arguments of any denoiser the user's call and the blank one differ."""
        self.guided_later = False
        """Whether something changed after a first step in which nothing differs."""
        self.third_row = third_row

    def iterating(self) -> None:
        if self.watch_again or len(self.loops) > 1:
            return
        (loop,) = self.loops
        if self.known and self.first_step:
            if not loop.index:
                raise DelayError(
                    f"{type(self.pipe).__name__} calls models under a progress bar and then loops "
                    "over timesteps: where its denoising begins cannot be told"
                )
            self._conclude()
        self._begin(loop.index, loop.count)
        if self.third_row:
            acts = self.window.active(self.step)
            self.third_row.next_step(self.step, acts, first=not loop.index)
        if self._nothing_is_left_to_do():
            self.watch_again = unwatch(self.stand_in())

    def _nothing_is_left_to_do(self) -> bool:
        """Whether the rest of the loop is that of a plain call."""
        return (
            not (self.first_step or self.early)
            and bool(self.paths)
            and self.denoising is _computed
            and self.window.stays_active(self.step)
        )

    def iterated(self) -> None:
        if self.watch_again and not self.loops:
            self.watch_again()
            self.watch_again = None

    def scheduled(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        if not self.loops:
            self.step = self.calls = 0
            self.stepping = False
            if self.third_row:
                self.third_row.next_step(0, False, first=True)

    def stepped(self) -> None:
        self._check_was_called()
        if self.third_row:
            self.third_row.stepped()
        self.stepping = True
        self.calls = 0
        if self.known and self.first_step:
            self._conclude()

    def called(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if self.loops:
            self.progress_bar = False
        elif self.progress_bar:
            # Several schedulers may step one after the other: that is one step.
            self._begin(self.step + self.stepping, self._announced())
            if self.third_row and not self.calls:
                self.third_row.next_step(self.step, self.window.active(self.step), first=False)
        else:
            return self._set_up(module, args, kwargs)
        if self.third_row:
            args, kwargs = self.third_row.received(args, kwargs)
        self.stepping = False
        call = self.calls
        self.calls += 1
        if self.first_step:
            return self._first(module, args, kwargs)
        if id(module) in self.setup:
            return self.denoising(module, args, kwargs)
        if not self.paths:
            self._check_still_unguided(call, module, args, kwargs)
        # Past the last step come checkers and the like.
        elif self.early and (id(module) in self.denoisers or self.step < self.window.steps):
            given = args, kwargs
            args, kwargs = self._blanked(call, module, args, kwargs)
            if self.third_row:
                return self.third_row.call(module, given, (args, kwargs), self.paths)
        return self.denoising(module, args, kwargs)

    def in_context(self, context: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.third_row:
            return self.third_row.in_context(context, args, kwargs)
        return super().in_context(context, *args, **kwargs)

    def _set_up(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        if not self.first_step:
            return module(*args, **kwargs)
        self.setup.add(id(module))
        given, before = fresh(dict(leaves((args, kwargs)))), Randomness()
        output = module(*args, **kwargs)
        self.rehearsals.setup.append(SetUp(module, given, before, output))
        return output

    @functools.cached_property
    def _first_blank(self) -> DenoiserCall | None:
        """The first denoiser call with a blank negative prompt."""
        try:
            return self.rehearsals.blank.next([])
        except Exception as error:
            raise DelayError(self.why_blank_fails(error)) from error

    def _first_blank_of(
        self, module: torch.nn.Module, given: dict[Path, Any]
    ) -> DenoiserCall | None:
        """The same, beside the one with the negative prompt as it was given."""
        setup = self.rehearsals.setup
        known = self.memory.first_call(module, given, setup)
        if known is not None:
            return known
        blank = self._first_blank
        if blank is not None and blank.module is module and blank.given.keys() == given.keys():
            encoders = {id(made.module) for made in self.rehearsals.blank.setup}
            self.memory.keep(blank, given, setup, encoders)
        return blank

    def _check_was_called(self) -> None:
        if self.first_step and not self.made:
            raise DelayError(
                f"{type(self.pipe).__name__} calls no PyTorch model of its own in a loop over its "
                "scheduler's timesteps, or under a progress bar, before its first scheduler step: "
                "its negative prompt cannot be delayed"
            )

    def _begin(self, step: int, steps: int) -> None:
        """Goes to a step of so many."""
        if step != self.step:
            self.calls = 0
        self.step = step
        if steps != self.window.steps:
            self.window = self.settings.window(steps)
        self.early = not self.window.active(step) or self.third_row is not None

    def _first(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        """A call of the first step."""
        arguments = args, kwargs
        given = dict(leaves(arguments))
        blank = self._rehearsed(module, given)
        if blank is not None:
            changed = {path for path, leaf in given.items() if not same(leaf, blank[path])}
            self.paths |= changed
            self.known[len(self.made)] = _Known(module, given, blank)
            if self.early:
                news = {path: blank[path] for path in changed}
                args, kwargs = replaced((args, kwargs), news)
        elif not self._told_by_another(module, given):
            raise DelayError(
                f"{type(self.pipe).__name__} goes on from one denoiser call to the next with what "
                f"the denoiser keeps, in attention processors or hooks ({self.untold}): what it "
                "would get of an empty negative prompt cannot be told"
            )
        elif self.early:
            args, kwargs = self._blanked(len(self.made), module, args, kwargs)
        if self.third_row:
            ahead = self.rehearsals.ahead(module, self.made)
            output = self.third_row.call(module, arguments, (args, kwargs), self.paths, ahead)
            self.made.append(Made(module, form(output, "blank")))
        else:
            output = self.denoising(module, args, kwargs)
            self.made.append(Made(module, output))
        return output

    def _rehearsed(self, module: torch.nn.Module, given: dict[Path, Any]) -> Any:
        """What the call gets with a blank negative prompt; ``None`` if that cannot be told.

        The rehearsal of the call as it was given must come to the same call: else it depends on
        what the denoiser, which rehearsals do not call, does besides giving its output.
        """
        if not self.made:
            blank = self._first_blank_of(module, given)
        else:
            try:
                seen = self.rehearsals.given.next(self.made)
            except Exception as error:
                self.untold = repr(error)
                return None
            if (
                seen is None
                or seen.module is not module
                or seen.given.keys() != given.keys()
                or not all(same(leaf, given[path]) for path, leaf in seen.given.items())
            ):
                self.untold = "a rehearsal without them comes to another call"
                return None
            blank = self.rehearsals.blank.next(self.made)
        if blank is None or blank.module is not module or blank.given.keys() != given.keys():
            raise DelayError(
                f"{type(self.pipe).__name__} calls its denoiser in another way with an empty "
                "negative prompt: the negative prompt cannot be delayed"
            )
        return blank.given

    def _told_by_another(self, module: torch.nn.Module, given: dict[Path, Any]) -> bool:
        """Whether a call before it in this step shows where this one has the negative prompt."""
        return not self.paths.isdisjoint(given) and any(
            known.module is module and given.keys() <= known.given.keys()
            for known in self.known.values()
        )

    def _conclude(self) -> None:
        """Ends the first step: from here on only what differs is of interest."""
        self.first_step = False
        self.denoisers = {id(made.module) for made in self.made}
        self.setup -= self.denoisers
        self.made.clear()
        self.rehearsals.setup.clear()
        for known in self.known.values():
            for leafs in (known.given, known.blank):
                for path in leafs.keys() - self.paths:
                    del leafs[path]

    def _check_still_unguided(
        self, call: int, module: torch.nn.Module, args: Any, kwargs: Any
    ) -> None:
        """In the first step nothing differed: where that changes, guidance begins."""
        if id(module) not in self.denoisers and self.step >= self.window.steps:
            return
        known = self.known.get(call)
        got = _shapes(dict(leaves((args, kwargs))))
        if known is None or known.module is not module or known.shapes != got:
            self.guided_later = True
            if self.early:
                raise self._calls_differ_from_the_first_step(module)

    def _calls_differ_from_the_first_step(self, module: torch.nn.Module) -> DelayError:
        return DelayError(
            f"step {self.step} calls {type(module).__name__} in a way that step 0 did not, so that "
            "the negative prompt may come in there: it cannot be delayed where guidance, or a "
            "second model, begins only within the delay"
        )

    def _blanked(
        self, call: int, module: torch.nn.Module, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        """The arguments of a call with a blank negative prompt."""
        # The call in the same place of the first step tells calls with equal texts apart.
        known = self.known.get(call)
        if known is not None and known.given.keys() == self.paths:
            # Nearly always it gets the very same tensors.
            given = (args, kwargs)
            if all(at(given, path) is leaf for path, leaf in known.given.items()):
                return replaced(given, known.blank)  # type: ignore[no-any-return]
        got = {path: leaf for path, leaf in leaves((args, kwargs)) if path in self.paths}
        if not got:
            if id(module) not in self.denoisers:
                raise self._calls_differ_from_the_first_step(module)
            return args, kwargs
        blank = (known and known.blank_of(got)) or self._blank_anywhere(got)
        if blank is None:
            raise DelayError(
                f"step {self.step} gives {type(module).__name__} a text that was not there in "
                "step 0, from the pipeline or a callback: the negative prompt cannot be delayed"
            )
        news = {path: leaf for path, leaf in blank.items() if leaf is not got[path]}
        args, kwargs = replaced((args, kwargs), news)
        return args, kwargs

    def _blank_anywhere(self, got: dict[Path, Any]) -> dict[Path, Any] | None:
        found = [
            blank for known in self.known.values() if (blank := known.blank_of(got)) is not None
        ]
        agree = all(same(blank[path], found[0][path]) for blank in found for path in got)
        return found[0] if found and agree else None

    def _announced(self) -> int:
        """Iterations of a denoising loop that does not go over the timesteps themselves."""
        if self._first_blank and self.rehearsals.blank.announces_steps:
            announced: int = vars(self.pipe)["_num_timesteps"]
            return announced
        begin = getattr(self.scheduler, "begin_index", None) or 0
        return len(self.scheduler.timesteps) - begin

    def finish(self) -> None:
        """Ends the call.

        Raises:
            DelayError: If it turns out that its steps were not seen.
        """
        self._check_was_called()
        if self.third_row:
            self.third_row.end_step()
        if self.first_step and self.progress_bar and self.known:
            raise DelayError(
                f"{type(self.pipe).__name__} neither loops over its scheduler's timesteps nor "
                "steps its scheduler: its negative prompt cannot be delayed"
            )
        if not self.paths and not self.guided_later:
            _say_once(
                self.pipe,
                logging.WARNING,
                "the negative prompt makes no difference to the denoiser, as if guidance were "
                "off or the prompt empty: there is nothing to delay",
            )
