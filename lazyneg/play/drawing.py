"""What the page shows besides its controls: HTML in which nothing of the user's is markup."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from itertools import groupby

from PIL import Image, ImageChops

from lazyneg.core.settings import ACTED_KEYS
from lazyneg.core.window import spans
from lazyneg.painting import pictures
from lazyneg.play.session import Row

_FINE = 75
"""Steps from which on they are too narrow for lines between them."""


def figures(row: Row, differences: bool) -> str:
    """The three pictures side by side; or the first, and how the others differ from it."""
    without = row.without.picture
    drawn = [_figure("Without a negative prompt", without, str(row.without.infotext))]
    for title, painted in (
        ("Always", row.always),
        (pictures.label(row.settings).capitalize(), row.delayed),
    ):
        if differences:
            changed = ImageChops.difference(painted.picture, without)
            words = "what differs" if changed.getbbox() else "no pixel differs"
            drawn.append(_figure(f"{title}: {words}", changed, ""))
        else:
            drawn.append(_figure(title, painted.picture, str(painted.infotext)))
    return f'<div class="row">{"".join(drawn)}</div>'


def _figure(title: str, picture: Image.Image, infotext: str) -> str:
    file = io.BytesIO()
    pictures.save(picture, file, infotext)
    data = base64.b64encode(file.getvalue()).decode()
    words = escape(title)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{words}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def timeline(row: Row) -> str:
    """What acts in which steps."""
    settings, window = row.settings, row.window
    names = {
        "empty": "early negative prompt" if settings.early_prompt else "empty prompt",
        "negative": ACTED_KEYS[False] if settings.adaptive else "negative prompt",
        "waiting": "adaptive waits",
    }

    def kind(step: int) -> str:
        if not window.active(step):
            return "empty"
        return "negative" if not settings.adaptive or step in row.delayed.acted else "waiting"

    steps = range(window.steps)
    words = {
        name: f"{names[name]}: {spans([step for step in steps if kind(step) == name])}"
        for name in names
        if name in {"negative", *map(kind, steps)}
    }
    parts = "".join(
        f'<i class="{name}" style="flex-grow:{len([*run])}"></i>'
        for name, run in groupby(steps, kind)
    )
    legend = "".join(
        f'<span><i class="{name}"></i> {escape(text)}</span>' for name, text in words.items()
    )
    fine = " fine" if window.steps > _FINE else ""
    return (
        f'<div class="track{fine}" style="--steps:{window.steps}" role="img" '
        f'aria-label="{escape("; ".join(words.values()))}">{parts}</div>'
        f'<p class="legend">{legend}</p>'
    )


def said(messages: Iterable[str], role: str) -> str:
    """Messages that are read out as they appear."""
    return "".join(f'<p role="{role}">{escape(message)}</p>' for message in messages)
