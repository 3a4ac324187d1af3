"""What the extension costs on a real WebUI, beside the host's own way to do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.measuring import peak, quartiles, side_by_side
from benchmarks.servers import STEPS, WAYS, Servers, told_of_start

NEGATIVES = {"short": "glasses, hat", "150 tokens": " ".join(["hat"] * 150)}
COUNTS = ("denoiser calls", "denoiser rows", "text encoder calls")
PAIRS = {
    # What is left between two processes that do the same.
    "not installed": "detached",
    "off": "detached",
    "critical step 5": "detached",
    "prompt editing": "detached",
    "empty": "detached",
    "critical step 5 beside prompt editing": "prompt editing",
}

Measure = Callable[..., dict[str, float]]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, servers: Servers) -> str:
    """The checkpoint in use."""
    name: str = request.param
    known = {model["model_name"] for model in servers.ours.get("sd-models")}
    if name not in known:
        pytest.skip(f"{servers.ours.kind.name} has no small checkpoint of this shape")
    servers.options(sd_model_checkpoint=f"{name}.safetensors")
    return name


@pytest.fixture(params=[1, 8], ids=lambda size: f"batch of {size}")
def batch(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture(params=NEGATIVES)
def picture(servers: Servers, model: str, batch: int, request: pytest.FixtureRequest) -> Measure:
    """Makes the pictures of a request, in a way."""

    def made(way: str, hooks: str | None = None, **payload: Any) -> dict[str, float]:
        negative = NEGATIVES[request.param]
        return servers.picture(WAYS[way], negative, hooks, batch_size=batch, **payload)

    return made


@pytest.mark.parametrize("name", PAIRS)
def test_a_picture(benchmark: Any, servers: Servers, picture: Measure, name: str) -> None:
    way, beside = name.partition(" beside ")[0], PAIRS[name]

    def timed(way: str) -> dict[str, float]:
        told = picture(way)
        return {"cpu": told["cpu"], "wall": told["wall"], "call": told["in calls"]}

    # Measured are repeats.
    for one in (way, beside):
        picture(one)
    benchmark.extra_info.update({count: picture(way)[count] for count in COUNTS})
    benchmark.extra_info["our functions"] = (
        picture(way, "traced")["our functions"] if way in ("off", "critical step 5") else 0
    )
    side_by_side(benchmark, lambda: timed(way), lambda: timed(beside), rounds=15, steps=STEPS)
    process = told_of_start(servers.of(WAYS[way]))["pid"]
    benchmark.extra_info["peak MB"] = peak(lambda: picture(way), str(process))


@pytest.mark.parametrize("way", ["off", "critical step 5"])
def test_time_in_the_hooks(benchmark: Any, picture: Measure, way: str) -> None:
    """The share of a picture's CPU time that goes into the extension, without another's noise."""
    picture(way)
    told: list[dict[str, float]] = []
    benchmark.pedantic(lambda: told.append(picture(way, "timed")), rounds=15)
    benchmark.extra_info["cpu"] = quartiles(
        [one["cpu"] / (one["cpu"] - one["in hooks"]) for one in told]
    )
    benchmark.extra_info["added"] = quartiles([one["in hooks"] / STEPS * 1e6 for one in told])


def test_off_is_as_if_not_there(picture: Measure) -> None:
    for _ in range(2):
        made = {way: picture(way, prompt="a boy") for way in ("off", "not installed")}
        assert _counted(made["off"]) == _counted(made["not installed"])


def test_rows_of_a_delay(picture: Measure) -> None:
    for way in ("critical step 5", "prompt editing"):
        picture(way)
    delayed, edited = picture("critical step 5"), picture("prompt editing")
    assert delayed["denoiser rows"] == picture("not installed")["denoiser rows"]
    for count in COUNTS:
        assert delayed[count] <= edited[count]


def test_texts_of_a_delay(servers: Servers, picture: Measure, forgotten: None) -> None:
    """One more in the first of equal requests, none in the others."""
    way = "critical step 5"
    assert picture(way)["texts"] == picture("not installed")["texts"] + 1
    assert picture(way)["texts"] == 0
    # The empty prompt is remembered for other prompts, too.
    assert (
        picture(way, prompt="a cat")["texts"] == picture("not installed", prompt="a cat")["texts"]
    )


@pytest.fixture
def forgotten(servers: Servers, picture: Measure) -> Iterator[None]:
    """Servers that remember no text's encoding, as another layer of the encoder is in use."""
    for way in ("critical step 5", "not installed"):
        picture(way)
    servers.options(CLIP_stop_at_last_layers=2)
    yield
    servers.options(CLIP_stop_at_last_layers=1)


def _counted(told: dict[str, float]) -> dict[str, float]:
    return {count: told[count] for count in (*COUNTS, "texts")}
