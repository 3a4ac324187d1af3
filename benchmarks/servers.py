"""A WebUI with the extension and one without, on whose pictures is told what they took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """Two servers of the same WebUI on the same models, those of one data folder."""

    without: WebUI
    ours: WebUI
    data: Path

    def options(self, **options: object) -> None:
        for server in (self.without, self.ours):
            server.options(**options)

    def of(self, way: Way) -> WebUI:
        return self.ours if way.installed else self.without

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
    ours = folder / "with"
    ours.mkdir()
    write_models(host, ours)
    without = data_beside(ours, folder / "without", {"a-measured": SUPPORT})
    install(ours, EXTENSIONS)
    with started(host, without) as first, started(host, ours) as second:
        yield Servers(first, second, ours)


def data_beside(data: Path, folder: Path, extensions: Mapping[str, Path]) -> Path:
    """Another data folder with the models of one."""
    folder.mkdir()
    (folder / "models").symlink_to(data / "models")
    install(folder, extensions)
    return folder


started = contextmanager(start)


def told_of_start(server: WebUI) -> dict[str, Any]:
    """What the extension did in a server's start, as the support extension tells it."""
    return dict(server.session.get(f"{server.url}/measured/start").json())
