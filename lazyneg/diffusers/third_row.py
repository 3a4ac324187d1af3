"""Where, and while, the negative prompt acts: a third row for the steps in which that is asked.

In these steps the pipeline's own denoiser call gets the blank form, as in the steps in which the
negative prompt does not act at all. Then the rows that differ are run once more as they were
given, in a call of their own, and in what the pipeline gets they are exchanged by what
:class:`~lazyneg.core.guidance.Guidance` makes of the two.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from lazyneg.core.guidance import Guidance
from lazyneg.core.settings import Settings
from lazyneg.diffusers.ahead import Ahead
from lazyneg.diffusers.batch import (
    Arguments,
    Batch,
    Denoising,
    Extra,
    count_of,
    differing_rows,
    may_mislead,
    partners_of,
    sample_of,
    tensors_of,
)
from lazyneg.diffusers.both import Both, form
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path, leaves, plain, replaced, same
from lazyneg.diffusers.rehearsal import Randomness

_Place = tuple[int, int]
"""Of a call in its step: the id of the model, and how often it was called before."""


@dataclass
class _Prompted:
    """A denoiser call of this step that has nothing of the negative prompt."""

    module: torch.nn.Module
    sample: Any
    output: Tensor


class ThirdRow:
    """Chooses in what the denoisers of one pipeline call give.

    Args:
        settings: How.
        denoising: Calls the denoisers.
        acted: Gets the steps in which the negative prompt acted in any picture.
    """

    def __init__(self, settings: Settings, denoising: Denoising, acted: set[int]) -> None:
        self.settings = settings
        self.denoising = denoising
        self.acted = acted
        self.step = 0
        self.acts = False
        """Whether there is a choice in this step."""
        self._guidances: dict[tuple[int, int], Guidance] = {}
        """By the number of the choice in its step, and the row."""
        self._counts: dict[int, int] = {}
        """Rows of the batches, by the number of the choice."""
        self._choices = 0
        """How many there were in this step."""
        self._calls: Counter[int] = Counter()
        """How often each model was called in this step, by its id."""
        self._feeding: dict[_Place, bool] = {}
        """Whether what a call gives goes into another model."""
        self._shapes: set[torch.Size] = set()
        """Of rows of what the denoisers of the first step give for the picture."""
        self._have_rows: dict[_Place, Mapping[Path, bool]] = {}
        """Which arguments have a row for each of the batch, where that was asked."""
        self._era = 0
        """Changes when the denoisers' outputs have gone into the picture."""
        self._prompted: list[_Prompted] = []
        self._all_differ = False
        """Whether a call in this step had no row without the negative prompt."""
        self._stateful: dict[int, bool] = {}
        """Whether a module keeps something in caches, by its id."""
        self._received: dict[Path, Tensor] = {}
        self._cache: _Cache | None = None

    def next_step(self, step: int, acts: bool, first: bool) -> None:
        """Begins a step, perhaps the first one of a pass."""
        self.end_step()
        self.stepped()
        self.step = step
        self.acts = acts
        self._choices = 0
        self._calls.clear()
        self._prompted.clear()
        if first:
            self._guidances.clear()
            self._counts.clear()

    def stepped(self) -> None:
        """A scheduler steps."""
        self._era += 1

    def end_step(self) -> None:
        """Ends a step.

        Raises:
            DelayError: If it turns out that rows of the prompt were taken for the negative's.
        """
        if self._all_differ and not self._prompted:
            raise DelayError(
                "an empty negative prompt also changes what the denoiser gets of the prompt: area "
                "and adaptive cannot tell their rows apart"
            )
        self._all_differ = False

    @contextlib.contextmanager
    def in_context(self, context: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[None]:
        """Enters a context of a model's caches."""
        with contextlib.ExitStack() as entered:
            entered.enter_context(context(*args, **kwargs))
            self._cache = _Cache(context, args, kwargs, entered)
            try:
                yield
            finally:
                self._cache = None

    def received(self, args: Any, kwargs: Any) -> Any:
        """The arguments of the next call, in blank form where they are in both."""
        self._received = {
            path: leaf.given for path, leaf in leaves((args, kwargs)) if isinstance(leaf, Both)
        }
        return form((args, kwargs), "blank")

    def call(
        self,
        module: torch.nn.Module,
        given: Arguments,
        blank: Arguments,
        paths: set[Path],
        ahead: Ahead | None = None,
    ) -> Any:
        """A denoiser call.

        Args:
            module: The denoiser.
            given: Its arguments with the negative prompt as it was given.
            blank: And with a blank one.
            paths: Where they may differ.
            ahead: In the first step, what comes of the call.

        Returns:
            What the pipeline is to get.

        Raises:
            DelayError: If the choice cannot be made.
        """
        place = id(module), self._calls[id(module)]
        self._calls[id(module)] += 1
        # Of lists of its own, before the call: models take them apart.
        blanks, givens = dict(leaves(blank)), {**dict(leaves(given)), **self._received}
        negative = replaced(given, givens)
        sample, listed = sample_of(module, blanks)
        output = self.denoising(module, *blank)
        differing = [
            path
            for path in (*paths, *(self._received.keys() - paths))
            if path in givens and not same(givens[path], blanks[path])
        ]
        tensors = tensors_of(output, listed)
        if differing and ahead is not None:
            self._learn(place, ahead, output, [*tensors.values()], givens, differing)
        if not self.acts:
            return output
        if not differing:
            self._prompted += [_Prompted(module, sample, tensor) for tensor in tensors.values()]
            return output
        self._check(module, givens)
        pairs = {path: (blanks[path], givens[path]) for path in differing}
        batch = self._batch(module, count_of(module, tensors), sample, listed, pairs)
        have_rows = self._have_rows.get(place, {})
        extra = Extra(module, negative, givens, differing, batch, have_rows)
        if self._feeding.get(place) and not listed:
            return self._fed(output, tensors, extra)
        if self._feeding.get(place) or len(tensors) != 1:
            raise DelayError(
                f"{type(module).__name__} gives {len(tensors)} tensors: in which of them area and "
                "adaptive are to choose cannot be told"
            )
        ((path, tensor),) = tensors.items()
        if tensor.shape[1:] not in self._shapes:
            raise DelayError(
                f"{type(module).__name__} gives something else than the denoiser of the first "
                "step: area and adaptive cannot tell what becomes of it"
            )
        chosen = self._chosen(sample, tensor, path, extra)
        if chosen is tensor:
            return output
        items = (where for where, leaf in leaves(output) if isinstance(leaf, Tensor))
        return replaced(output, dict(zip(items, chosen)) if listed else {path: chosen})

    def _learn(
        self,
        place: _Place,
        ahead: Ahead,
        output: Any,
        tensors: Sequence[Tensor],
        givens: Mapping[Path, Any],
        differing: Sequence[Path],
    ) -> None:
        """Learns of a call of the first step what itself does not tell."""
        self._feeding[place] = ahead.feeds(output)
        if not self._feeding[place]:
            self._shapes.update(tensor.shape[1:] for tensor in tensors)
        others = {path: leaf for path, leaf in givens.items() if path not in differing}
        if tensors and tensors[0].ndim and may_mislead(len(tensors[0]), others):
            self._have_rows[place] = ahead.rows(givens)

    def _check(self, module: torch.nn.Module, givens: Mapping[Path, Any]) -> None:
        """Checks that a model may be called once more than the pipeline does."""
        stateful = self._stateful.get(id(module))
        if stateful is None:
            stateful = self._stateful[id(module)] = keeps_state(module, givens)
        if stateful and self._cache is None:
            raise DelayError(
                f"caches on {type(module).__name__} keep something from call to call, and the "
                "pipeline does not tell them one call from another: area and adaptive make calls "
                "of their own"
            )

    def _batch(
        self,
        module: torch.nn.Module,
        count: int,
        sample: Any,
        listed: bool,
        pairs: Mapping[Path, tuple[Any, Any]],
    ) -> Batch:
        differing = [0]
        layouts: dict[Path, bool] = {}
        if count > 1:
            # Those of lists, not positional arguments.
            items = {path for path in pairs if listed and len(path) > 2}
            others = {path: pair for path, pair in pairs.items() if path not in items}
            differing, layouts = differing_rows(count, others)
            differing = sorted({*differing, *(path[-1] for path in items)})
        if not differing:
            raise DelayError(
                "the negative prompt changes more than some rows of the denoiser's batch: area "
                "and adaptive cannot tell them apart"
            )
        partners: dict[int, int] = {}
        if len(differing) == count:
            self._all_differ = True
        elif not self._prompt_of(module, sample):
            if 2 * len(differing) > count:
                raise DelayError(
                    "guidance has several rows with the negative prompt for each with the prompt: "
                    "area and adaptive do not know what it makes of them"
                )
            partners = partners_of(count, sample, differing, [blank for blank, _ in pairs.values()])
        return Batch(count, differing, partners, layouts, listed)

    def _prompt_of(self, module: torch.nn.Module, sample: Any) -> list[Tensor]:
        """What calls without the negative prompt gave in this step for the same latents."""
        return [
            made.output
            for made in self._prompted
            if made.module is module and same(made.sample, sample)
        ]

    def _fed(self, output: Any, tensors: Mapping[Path, Tensor], extra: Extra) -> Any:
        """An output that goes into another model, in both forms."""
        if self._guidances and all(guidance.over for guidance in self._guidances.values()):
            return output
        rows, era = extra.batch.differing, self._era
        both = {}
        made = self._made(extra, rows)
        for path, tensor in tensors.items():
            given = tensor.clone()
            given[rows] = made[path]
            both[path] = Both.of(tensor, given, lambda: self._era == era)
        return replaced(output, both)

    def _chosen(self, sample: Any, tensor: Tensor, path: Path, extra: Extra) -> Tensor:
        """An output that goes into the picture."""
        batch = extra.batch
        choice = self._choices
        self._choices += 1
        if self._counts.setdefault(choice, batch.count) != batch.count:
            raise DelayError(
                f"the denoiser's batch has {batch.count} rows after {self._counts[choice]}: "
                "area and adaptive cannot tell which picture is which"
            )
        guidances = {
            row: self._guidances.setdefault(
                (choice, row), Guidance(self.settings.area, self.settings.adaptive)
            )
            for row in batch.differing
        }
        rows = [row for row in batch.differing if not guidances[row].over]
        if not rows:
            return tensor
        prompts = self._prompts(extra.module, sample, tensor, batch)
        channels = channels_of(extra.module, tensor) if self.settings.area < 100 else 1
        # The call may write to the same memory, as CUDA graphs do.
        chosen, empty = tensor.clone(), tensor.clone()
        negatives = self._made(extra, rows)[path]
        for row, negative in zip(rows, negatives, strict=True):
            chosen[row] = guidances[row].uncond(prompts[row], empty[row], negative, channels - 1)
            if guidances[row].acted:
                self.acted.add(self.step)
        return chosen

    def _prompts(
        self, module: torch.nn.Module, sample: Any, tensor: Tensor, batch: Batch
    ) -> Mapping[int, Tensor]:
        """The output for the prompt, for each row that has the negative prompt."""
        if not self.settings.adaptive:
            # Not asked for.
            return {row: tensor[row] for row in batch.differing}
        if batch.partners:
            return {row: tensor[other].clone() for row, other in batch.partners.items()}
        found = [made for made in self._prompt_of(module, sample) if made.shape == tensor.shape]
        if len(found) != 1:
            many = "several" if found else "none"
            raise DelayError(
                "adaptive needs the denoiser's output for the prompt to compare with, and "
                f"{many} of those so far in this step can be told to be it; area alone does not"
            )
        return {row: found[0][row] for row in batch.differing}

    def _made(self, extra: Extra, rows: list[int]) -> Mapping[Path, Tensor]:
        """What the model gives for some rows as they were given, and nothing but that."""
        randomness = Randomness()
        own = self._cache.own() if self._cache else contextlib.nullcontext()
        try:
            with own:
                return extra.made(rows, self.denoising)
        finally:
            # Other threads may draw too.
            if not randomness.same(Randomness()):
                randomness.restore()


@dataclass
class _Cache:
    """A context of a model's caches that a pipeline is in."""

    context: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entered: contextlib.ExitStack

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Another one, for the calls with the negative prompt."""
        about = {name: value for name, value in self.kwargs.items() if name != "name"}
        with self.context("lazyneg", *self.args[1:], **about):
            yield
        self.entered.enter_context(self.context(*self.args, **self.kwargs))


def channels_of(module: torch.nn.Module, output: Tensor) -> int:
    """The dimension of the channels."""
    config = getattr(module, "config", {})
    names = ("in_channels", "out_channels", "in_visual_dim", "out_visual_dim")
    # Some keep only among their attributes that they also give variances.
    allowed = {getattr(config, name, None) for name in names} | {vars(module).get("out_channels")}
    outer, patch = (getattr(config, name, None) for name in ("out_channels", "patch_size"))
    if isinstance(outer, int) and isinstance(patch, int):
        allowed.add(outer * patch**2)
    found = [index for index in range(1, output.ndim) if output.shape[index] in allowed]
    if output.ndim == 4 and found[:1] == [1]:
        # Of a picture they come first; of videos, sounds and tokens not always.
        return 1
    if len(found) != 1:
        raise DelayError(
            f"{type(module).__name__} gives {tuple(output.shape)}, in which "
            f"{'several dimensions' if found else 'no dimension'} can be its channels: area and "
            "adaptive cannot tell where in the picture something is"
        )
    return found[0]


def keeps_state(module: torch.nn.Module, givens: Mapping[Path, Any]) -> bool:
    """Whether a model has caches that keep something for each context.

    Raises:
        DelayError: If it has something that may keep anything from call to call.
    """
    objects = {
        type(leaf).__name__
        for leaf in givens.values()
        if not plain(leaf) and not isinstance(leaf, (Number, Tensor, torch.dtype, torch.device))
    }
    processors = {
        type(processor).__name__
        for part in module.modules()
        if callable(processor := getattr(part, "processor", None))
        and not type(processor).__module__.startswith("diffusers.models.")
    }
    hooks = [
        hook
        for part in module.modules()
        if (registry := vars(part).get("_diffusers_hook")) is not None
        for hook in registry.hooks.values()
        if hook._is_stateful
    ]
    caches = {
        type(hook).__name__
        for hook in hooks
        if not any(hasattr(value, "set_context") for value in vars(hook).values())
    }
    if unknown := sorted(objects | processors | caches):
        raise DelayError(
            f"{type(module).__name__} works with {', '.join(unknown)}, which may look at the whole "
            "batch or keep something from call to call: area and adaptive make calls of their own"
        )
    return bool(hooks)
