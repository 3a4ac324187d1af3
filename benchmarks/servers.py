"""A WebUI with the extension and one without, on whose pictures is told what they took."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.host.conftest import ROOT, WebUI, install, start, write_models
from tests.host.hosts import Host

SUPPORT = Path(__file__).parent / "support"
EXTENSIONS = {"a-measured": SUPPORT, "lazy-negative": ROOT}
STEPS = 20


@dataclass(frozen=True)
class Way:
    """What becomes of a negative prompt.

    Attributes:
        installed: Whether the extension is there.
        hooks: What the support extension does to its hooks; see there.
        lazy: Its arguments; ``None`` leaves it off.
        negative: The negative prompt's field, with a place for the prompt.
    """

    installed: bool = True
    hooks: str | None = None
    lazy: Any = None
    negative: str = "{}"


WAYS = {
    "not installed": Way(installed=False),
    "detached": Way(hooks="detached"),
    "off": Way(),
    "critical step 5": Way(lazy=[{"enabled": True, "critical_step": 5}]),
    # The host's own counts from another step.
    "prompt editing": Way(hooks="detached", negative="[:{}:4]"),
    "empty": Way(hooks="detached", negative=""),
}


@dataclass(frozen=True)
class Servers:
    """Two servers of the same WebUI on the same models."""

    without: WebUI
    ours: WebUI

    def options(self, **options: object) -> None:
        for server in (self.without, self.ours):
            server.options(**options)

    def of(self, way: Way) -> WebUI:
        return self.ours if way.installed else self.without

    def loads(self, way: Way) -> dict[str, Any]:
        """What a server tells of the scripts that it has loaded, and of itself."""
        server = self.of(way)
        return dict(server.session.get(f"{server.url}/measured/loads").json())

    def picture(
        self, way: Way, negative: str, hooks: str | None = None, **payload: Any
    ) -> dict[str, float]:
        """What the making of a request's pictures took, times in seconds.

        Args:
            way: What becomes of its negative prompt.
            negative: That prompt.
            hooks: What the support extension does to the extension's hooks beside what ``way`` has.
            payload: Changes to the request.
        """
        server = self.of(way)
        if how := hooks or way.hooks:
            url = f"{server.url}/measured/next"
            server.session.post(url, params={"how": how}).raise_for_status()
        prompt = way.negative.format(negative)
        answer = server(way.lazy, steps=STEPS, negative_prompt=prompt, **payload)
        told: dict[str, float] = answer.params["Measured"]
        return told


@contextmanager
def servers_of(host: Host, folder: Path) -> Iterator[Servers]:
    """Starts both servers, on data folders of their own in ``folder``."""
    without, ours = folder / "without", folder / "with"
    for data in (without, ours):
        data.mkdir()
    write_models(host, ours)
    (without / "models").symlink_to(ours / "models")
    install(without, {"a-measured": SUPPORT})
    install(ours, EXTENSIONS)
    with started(host, without) as first, started(host, ours) as second:
        yield Servers(first, second)


started = contextmanager(start)
