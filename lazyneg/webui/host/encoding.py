"""Having the host encode a text as it would a negative prompt, and remembering the outcome."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

from modules import prompt_parser, shared

from lazyneg.webui.host.passes import Pass

try:
    from modules.sd_hijack import model_hijack
except ImportError:  # Forge Neo
    model_hijack = None
try:
    from backend.args import dynamic_args
    from backend.text_processing import classic_engine
except ImportError:  # A1111, reForge
    dynamic_args = classic_engine = None


def _model_state() -> tuple[Any, ...]:
    """What tells the model in use from another, also one that is loaded into the same object."""
    return weakref.ref(shared.sd_model), shared.sd_model.sd_checkpoint_info


def encode(p: Any, text: str) -> Any:
    """The conditioning of ``text`` in the pass that ``p`` is about to make.

    The host does it, so that all is right that only it knows: clip skip, networks, emphasis, the
    zeros that Stable Diffusion XL takes for an empty text.

    Returns:
        A list with one schedule: what the host's ``reconstruct_cond_batch`` takes.
    """
    wanted = Pass.of(p)
    about = {} if wanted.distilled is None else {"distilled_cfg_scale": wanted.distilled}
    prompts = prompt_parser.SdConditioning(
        [text],
        is_negative_prompt=True,
        width=wanted.size[0],
        height=wanted.size[1],
        **about,
    )
    with _notes_kept():
        return p.get_conds_with_caching(
            prompt_parser.get_learned_conditioning,
            prompts,
            p.firstpass_steps,
            [_cache(p, wanted)],
            wanted.networks,
            wanted.hires_steps,
        )


@contextlib.contextmanager
def _notes_kept() -> Iterator[None]:
    """What the host notes while it encodes would only reach the pictures after this one.

    A1111 and reForge note into their hijack. Forge and Neo note into the model, by way of the
    text engine and of their arguments, where a note stays if the encoding fails.
    """
    names = ("extra_generation_params", "comments", "last_extra_generation_params")
    kept = [
        (notes, notes.copy())
        for owner in (model_hijack, shared.sd_model, dynamic_args, classic_engine)
        for name in names
        if isinstance(notes := getattr(owner, name, None), (dict, list))
    ]
    try:
        yield
    finally:
        for notes, before in kept:
            notes.clear()
            if isinstance(notes, dict):
                notes.update(before)
            else:
                notes.extend(before)


_caches: dict[bool, tuple[tuple[Any, ...], list[Any]]] = {}
"""A cache of the host's kind for each kind of pass, with what it depends on."""


def _cache(p: Any, wanted: Pass) -> list[Any]:
    """A cache in the host's form, valid for all that an encoding depends on.

    The host compares it with its own key. That leaves out what cannot change while its own texts
    stay the same, such as the size of a hires pass or its checkpoint; but the empty text is always
    the same. So: the model itself, its embeddings, every option, the pass, and the host's own
    cache, in whose place hosts put another when what is in it shall be forgotten.
    """
    state = (
        _model_state(),
        _embeddings(),
        dict(shared.opts.data),
        wanted.size,
        wanted.distilled,
        p.cached_uc,
    )
    known = _caches.get(wanted.hires)
    # The host's cache by identity: it is a list, and equal lists are not the same.
    if known is None or known[0][:-1] != state[:-1] or known[0][-1] is not state[-1]:
        known = _caches[wanted.hires] = (state, [None, None, None])
    return known[1]


def _embeddings() -> tuple[Any, ...]:
    """The textual inversions that the host has loaded: it does so anew where files changed.

    (Forge and Neo load them with the model.)
    """
    known = getattr(model_hijack, "embedding_db", None)
    return tuple(known.word_embeddings.values()) if known is not None else ()
