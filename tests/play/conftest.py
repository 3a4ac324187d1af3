from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lazyneg.demo import CHECKPOINT, CONFIG
from lazyneg.painting.painter import Painter
from lazyneg.play.session import Request, Session
from tests.browser.conftest import browser

__all__ = ["browser"]

HOSTILE = (
    "\"'><img src=x onerror=pwned()><script>pwned()</script> ${pwned()} {{pwned()}} </textarea>"
)
"""Markup, and what templates of JavaScript and Python run."""


def asked(**other: Any) -> Request:
    """What the controls say of a short run."""
    said = {
        "prompt": "girl eating pizza",
        "negative": "glasses",
        "seed": 7,
        "steps": 6,
        "guidance": 5,
        "sampler": "",
    }
    of_row = {name: other.pop(name) for name in [*other] if name in said}
    return Request(**{**said, **of_row}, delay={"critical_step": 3, **other})


def sources(html: str) -> list[str]:
    """The addresses of the pictures in a page."""
    return [unescape(source) for source in re.findall(r'<img[^>]* src="([^"]*)"', html)]


def pixels(source: str) -> Any:
    """Of a picture that a page has in itself."""
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture(scope="session")
def embedded() -> Session:
    return Session(Painter(CHECKPOINT, CONFIG, [], "cpu", None), {}, [("--device", "cpu")])


@pytest.fixture(scope="session")
def tiny(model: Path) -> Session:
    """Of a random model that paints in no time."""
    options = [("--model", model), ("--device", "cpu")]
    return Session(Painter(model, None, [], "cpu", None), {"Size": "32x16"}, options)


@pytest.fixture(scope="session")
def served(embedded: Session) -> Iterator[Any]:
    pytest.importorskip("gradio", reason="gradio is not installed")
    from lazyneg.play.page import serve

    blocks = serve(embedded, "127.0.0.1", None)
    yield blocks
    blocks.close(verbose=False)
