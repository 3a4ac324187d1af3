"""Where, and while, the negative prompt acts: a third row for the steps in which that is asked.

In these steps the pipeline's own denoiser call gets the blank form, as in the steps in which the
negative prompt does not act at all. Then the rows that differ are run once more as they were
given, in a call of their own, and in what the pipeline gets they are exchanged by what
:class:`~lazyneg.core.guidance.Guidance` makes of the two.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyneg.core.guidance import Guidance
from lazyneg.core.settings import Settings
from lazyneg.diffusers.both import Both, form
from lazyneg.diffusers.errors import DelayError
from lazyneg.diffusers.leaves import Path, leaves, plain, replaced, same
from lazyneg.diffusers.rehearsal import DenoiserCall, Made, Randomness, Rehearsal

Arguments = tuple[Sequence[Any], dict[str, Any]]

_Place = tuple[int, int]
"""Of a call in its step: the id of the model, and how often it was called before."""


@dataclass
class _Prompted:
    """A denoiser call of this step that has nothing of the negative prompt."""

    module: torch.nn.Module
    sample: Any
    output: Tensor


@dataclass
class _Batch:
    """The rows of one denoiser call.

    Attributes:
        count: How many there are.
        differing: Those that have the negative prompt.
        partners: For each of those the row that has the prompt for the same picture; empty where
            that cannot be told, or is in another call.
        layouts: Of arguments that have several rows for each one: whether they lie together.
        listed: Whether it is lists that have an item for each row.
    """

    count: int
    differing: list[int]
    partners: dict[int, int]
    layouts: dict[Path, bool]
    listed: bool


class ThirdRow:
    """Chooses in what the denoisers of one pipeline call give.

    Args:
        settings: How.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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

    def next_step(self, acts: bool, first: bool) -> None:
        """Begins a step, perhaps the first one of a pass."""
        self.end_step()
        self.stepped()
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
        # Before the call: models take lists apart.
        negative = replaced(_copied(given), self._received)
        blanks, givens = dict(leaves(blank)), dict(leaves(negative))
        sample, listed = _sample(module, blanks)
        output = module(*blank[0], **blank[1])
        differing = [
            path
            for path in (*paths, *(self._received.keys() - paths))
            if path in givens and not same(givens[path], blanks[path])
        ]
        tensors = _tensors(output, listed)
        if differing and ahead is not None:
            self._learn(place, ahead, output, [*tensors.values()], givens, differing)
        if not self.acts:
            return output
        if not differing:
            self._prompted += [_Prompted(module, sample, tensor) for tensor in tensors.values()]
            return output
        self._check(module, givens)
        pairs = {path: (blanks[path], givens[path]) for path in differing}
        batch = self._batch(module, _count(module, tensors), sample, listed, pairs)
        have_rows = self._have_rows.get(place, {})
        extra = _Extra(module, negative, givens, differing, batch, have_rows)
        if self._feeding.get(place) and not listed:
            return self._fed(output, tensors, extra)
        if self._feeding.get(place) or len(tensors) != 1:
            raise DelayError(
                f"{type(module).__name__} gives {len(tensors)} tensors: in which of them area and "
                "adaptive are to choose cannot be told"
            )
        ((path, tensor),) = tensors.items()
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
        others = {path: leaf for path, leaf in givens.items() if path not in differing}
        if tensors and tensors[0].ndim and _may_mislead(len(tensors[0]), others):
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
    ) -> _Batch:
        differing = [0]
        layouts: dict[Path, bool] = {}
        if count > 1:
            items = {path for path in pairs if listed and isinstance(path[-1], int)}
            others = {path: pair for path, pair in pairs.items() if path not in items}
            differing, layouts = _differing_rows(count, others)
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
            partners = _partners(count, sample, differing, [blank for blank, _ in pairs.values()])
        return _Batch(count, differing, partners, layouts, listed)

    def _prompt_of(self, module: torch.nn.Module, sample: Any) -> list[Tensor]:
        """What calls without the negative prompt gave in this step for the same latents."""
        return [
            made.output
            for made in self._prompted
            if made.module is module and same(made.sample, sample)
        ]

    def _fed(self, output: Any, tensors: Mapping[Path, Tensor], extra: _Extra) -> Any:
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

    def _chosen(self, sample: Any, tensor: Tensor, path: Path, extra: _Extra) -> Tensor:
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
        return chosen

    def _prompts(
        self, module: torch.nn.Module, sample: Any, tensor: Tensor, batch: _Batch
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

    def _made(self, extra: _Extra, rows: list[int]) -> Mapping[Path, Tensor]:
        """What the model gives for some rows as they were given, and nothing but that."""
        randomness = Randomness()
        own = self._cache.own() if self._cache else contextlib.nullcontext()
        try:
            with own:
                return extra.made(rows)
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


@dataclass
class _Extra:
    """A call with the negative prompt beside the pipeline's own."""

    module: torch.nn.Module
    arguments: Arguments
    givens: Mapping[Path, Any]
    differing: Sequence[Path]
    batch: _Batch
    have_rows: Mapping[Path, bool]
    """Which arguments have a row for each of the batch, where that is known."""

    def made(self, rows: list[int]) -> Mapping[Path, Tensor]:
        """The tensors of the output for some rows."""
        batch = self.batch
        news = self._sliced(rows) if len(rows) < batch.count else None
        args, kwargs = self.arguments if news is None else replaced(self.arguments, news)
        tensors = _tensors(self.module(*args, **kwargs), batch.listed)
        if news is not None:
            return tensors
        return {path: tensor[rows] for path, tensor in tensors.items()}

    def _sliced(self, rows: list[int]) -> dict[Path, Any] | None:
        """Arguments with only these rows, ``None`` if it cannot be told which ones have rows."""
        batch = self.batch
        news: dict[Path, Any] = {}
        if not batch.partners:
            return None
        sizes = _list_sizes(self.givens)
        for path, leaf in self.givens.items():
            known, differs = self.have_rows.get(path), path in self.differing
            if batch.listed and sizes[path[:-1]] == batch.count:
                news.setdefault(path[:-1], []).extend([leaf] if path[-1] in rows else [])
                continue
            if known is False and not differs:
                continue
            if not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) % batch.count:
                # A list may have an item for each row.
                if known or differs or sizes[path[:-1]] == batch.count:
                    return None
                continue
            if path in batch.layouts:
                together, each = batch.layouts[path], len(leaf) // batch.count
                shape = (batch.count, each) if together else (each, batch.count)
                parts = leaf.reshape(*shape, *leaf.shape[1:])
                news[path] = (parts[rows] if together else parts[:, rows]).flatten(0, 1)
            elif len(leaf) == batch.count and (known or differs or self._paired(leaf)):
                news[path] = leaf[rows]
            else:
                return None
        return news

    def _paired(self, leaf: Tensor) -> bool:
        """Whether an argument has the same for the negative prompt as for the prompt.

        So the latents have, and what else is given for each row. What has as many rows by chance
        has not.
        """
        partners = self.batch.partners
        return torch.equal(leaf[[*partners]], leaf[[*partners.values()]])


@dataclass
class Ahead:
    """Tells what comes of a denoiser call of the first step.

    Attributes:
        module: The denoiser.
        blank: Rehearsal of the pipeline's call with a blank negative prompt.
        more: Makes the same for one picture more of each prompt, where that can be asked for.
        pictures: How many there are of each prompt.
        made: The denoiser calls before this one.
    """

    module: torch.nn.Module
    blank: Rehearsal
    more: Callable[[], Rehearsal] | None
    pictures: int
    made: Sequence[Made]

    def feeds(self, output: Any) -> bool:
        """Whether an output will be in what another model is called with."""
        try:
            call = self.blank.next([*self.made, _tracked(Made(self.module, output))])
        except Exception as error:
            raise DelayError(
                f"it cannot be told without calling {type(self.module).__name__} what becomes of "
                f"its output ({error!r}): area and adaptive cannot choose in it"
            ) from error
        return call is not None and any(isinstance(leaf, Both) for leaf in call.given.values())

    def rows(self, givens: Mapping[Path, Any]) -> Mapping[Path, bool]:
        """Which arguments have a row for each of the batch.

        They have more for more pictures. Those of which it cannot be told are left out.
        """
        call: DenoiserCall | None = None
        # Not all that the user gave can be had for more pictures.
        with contextlib.suppress(Exception):
            if self.more:
                call = self.more().next([*map(_tracked, self.made)])
        if call is None or call.module is not self.module:
            return {}
        found: dict[Path, bool] = {}
        before, after = _list_sizes(givens), _list_sizes(call.given)
        for path, leaf in givens.items():
            other = call.given.get(path)
            sizes = before[path[:-1]], after[path[:-1]]
            if sizes[0] == sizes[1] and isinstance(leaf, Tensor) and isinstance(other, Tensor):
                sizes = len(leaf) if leaf.ndim else 0, len(other) if other.ndim else 0
            if isinstance(other, Both):
                continue
            if sizes[0] == sizes[1]:
                found[path] = False
            elif sizes[0] * (self.pictures + 1) == sizes[1] * self.pictures:
                found[path] = True
        samples = [path for path in givens if path[:2] == _sample_path(self.module, givens)]
        return found if samples and all(map(found.get, samples)) else {}


def _tracked(made: Made) -> Made:
    """A call that gives what can be told from all else."""
    tracked = copy.copy(made)
    tracked.output = Both.of(made.output, made.output, lambda: True)
    return tracked


def _list_sizes(givens: Mapping[Path, Any]) -> Counter[Path]:
    """How many items lists among arguments have."""
    return Counter(path[:-1] for path in givens if len(path) > 2 and isinstance(path[-1], int))


def _may_mislead(count: int, givens: Mapping[Path, Any]) -> bool:
    """Whether arguments have numbers that may or may not be those of a batch's rows."""
    return count > 1 and (
        count in _list_sizes(givens).values()
        or any(
            isinstance(leaf, Tensor)
            and leaf.ndim
            and not len(leaf) % count
            and not (len(leaf) == count and same(*leaf.chunk(2)))
            for leaf in givens.values()
        )
    )


def _copied(value: Any) -> Any:
    """``value`` in dicts, lists and tuples of its own."""
    if not isinstance(value, (dict, list, tuple)):
        return value
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return replaced(value, {(key,): _copied(item) for key, item in items})


def _sample_path(module: torch.nn.Module, givens: Mapping[Path, Any]) -> Path:
    """Where the latents are: models take them first."""
    own = getattr(module, "_orig_mod", module)
    name = next(iter(inspect.signature(own.forward).parameters), None)
    return (0, 0) if any(path[:2] == (0, 0) for path in givens) else (1, name)


def _sample(module: torch.nn.Module, givens: Mapping[Path, Any]) -> tuple[Any, bool]:
    """The latents, and whether there is a list of them."""
    path = _sample_path(module, givens)
    if path in givens:
        return givens[path], False
    items = [leaf for where, leaf in givens.items() if where[:-1] == path]
    stacked = _stacked(items)
    return stacked, stacked is not None


def _stacked(items: Sequence[Any]) -> Tensor | None:
    """One tensor of several of the same shape."""
    if not items or not all(isinstance(item, Tensor) for item in items):
        return None
    return torch.stack([*items]) if len({item.shape for item in items}) == 1 else None


def _tensors(output: Any, listed: bool) -> dict[Path, Tensor]:
    """The tensors of an output; as one if it is a list with one for each row."""
    tensors = {path: leaf for path, leaf in leaves(output) if isinstance(leaf, Tensor)}
    stacked = _stacked([*tensors.values()]) if listed else None
    return tensors if stacked is None else {(): stacked}


def _count(module: torch.nn.Module, tensors: Mapping[Path, Tensor]) -> int:
    """How many rows an output has."""
    counts = {tensor.shape[:1] for tensor in tensors.values()}
    if len(counts) != 1 or () in counts:
        raise DelayError(
            f"{type(module).__name__} gives no tensors that all have the same number of rows: "
            "area and adaptive cannot tell which are the negative prompt's"
        )
    return counts.pop()[0]


def channels_of(module: torch.nn.Module, output: Tensor) -> int:
    """The dimension of the channels."""
    config = getattr(module, "config", {})
    inner, outer = (getattr(config, name, None) for name in ("in_channels", "out_channels"))
    patch = getattr(config, "patch_size", None)
    allowed = {inner, outer}
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
        if not plain(leaf) and not isinstance(leaf, (Tensor, torch.dtype, torch.device))
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


def _differing_rows(
    count: int, pairs: Mapping[Path, tuple[Any, Any]]
) -> tuple[list[int], dict[Path, bool]]:
    """Rows of a batch in which arguments differ, and the layouts as in :class:`_Batch`."""
    found: set[int] = set()
    layouts: dict[Path, bool] = {}
    for path, (blank, given) in pairs.items():
        marks = _marks(blank, given)
        if not marks or len(marks) % count:
            continue
        each = len(marks) // count
        together = [marks[row * each : (row + 1) * each] for row in range(count)]
        apart = [marks[row::count] for row in range(count)]
        fitting = [rows for rows in (together, apart) if all(any(row) == all(row) for row in rows)]
        if each > 1:
            if len(fitting) == 1:
                layouts[path] = fitting[0] is together
            elif not all(marks):
                continue
        found.update(row for row, marked in enumerate(fitting[0]) if any(marked))
    return sorted(found), layouts


def _marks(blank: Any, given: Any) -> list[bool] | None:
    """In which of their rows two tensors differ, as far as both go; ``None`` if in none alike."""
    if not isinstance(blank, Tensor) or not isinstance(given, Tensor):
        return None
    if blank.ndim != given.ndim or not blank.ndim or len(blank) != len(given):
        return None
    common = tuple(slice(min(sizes)) for sizes in zip(blank.shape, given.shape))
    differ: list[bool] = (blank[common] != given[common]).flatten(1).any(1).tolist()
    return differ


def _partners(
    count: int, sample: Any, differing: list[int], blanks: Sequence[Any]
) -> dict[int, int]:
    """As in :class:`_Batch`: a half of the batch has the negative prompt, the other the prompt."""
    if not isinstance(sample, Tensor) or not sample.ndim or len(sample) != count:
        return {}
    tensors = [
        blank for blank in blanks if isinstance(blank, Tensor) and blank.shape[:1] == (count,)
    ]
    # In a batch of pictures some may have an empty negative prompt, which does not differ.
    empty = [
        row
        for row in range(count)
        if all(torch.equal(tensor[row], tensor[differing[0]]) for tensor in tensors)
    ]
    for without in (empty, differing):
        prompted = [row for row in range(count) if row not in without]
        if len(prompted) != len(without) or not set(differing) <= set(without):
            continue
        if torch.equal(sample[without], sample[prompted]):
            partners = dict(zip(without, prompted, strict=True))
            return {row: partners[row] for row in differing}
    return {}
