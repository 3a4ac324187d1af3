"""Many requests of all kinds in random order, by two clients at once and a browser between them."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lazyneg.core.settings import Settings
from lazyneg.painting import infotext

from .conftest import WebUI, same

EVERY = 20
"""After so many requests comes one whose pixels are known."""
CLIENTS = 2

PROMPTS = ("girl eating pizza", "a (balloon:1.3) AND cat", "boy [hat:tree:3]", "style_tests, cat")
NEGATIVES = ("glasses, hat", "", "(lowres:1.2), [blurry:grain:0.5]", "tests")
TAGS = ("<lazyneg:3>", "<lazyneg:2:6>", "<lazyneg:25%>", "<lazyneg:0:4>")
WRONG_TAGS = ("<lazyneg:many>", "<lazyneg:-1>", "<lazyneg:5:2>", "<lazyneg>")
WRONG: tuple[Any, ...] = (
    [True, -1],
    [True, 2.5],
    [True, "two"],
    [True, 5, "percent", 101],
    [True, 5, "steps", 2],
    [True, 5, "minutes"],
    [True, 5, "steps", 0, "full", 0, "", 0],
    [True, 5, "steps", 0, "full", 0, "", 101],
    [{"enabled": True, "critical_stp": 5}],
    [{"enabled": "perhaps"}],
)
SAMPLERS = ("Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "DDIM", "LMS", "UniPC", "Restart")
CHECKPOINTS = ("sd1", "sd1b", "sd2")
"""Small ones, which are loaded in no time."""

CONTROLS: tuple[dict[str, Any], ...] = (
    {},
    {"negative_prompt": ""},
    {"lazy": [True, 4]},
    {"lazy": [True, 8]},
    {"lazy": [True, 2, "steps", 6], "sampler_name": "Euler a", "batch_size": 2},
    {"lazy": [True, 1, "steps", 0, "full", 0, "", 20, True]},
    {"prompt": "girl <lazyneg:3>"},
    {
        "lazy": [True, 50, "percent", 0, "same"],
        "enable_hr": True,
        "hr_scale": 1.5,
        "denoising_strength": 0.7,
    },
)


class Client:
    """Makes the requests of one of several clients; the same ones for the same seed."""

    def __init__(self, webui: WebUI, seed: str, init_images: list[str]) -> None:
        # A session must not be shared among threads.
        self.webui = WebUI(webui.url, webui.log, webui.kind)
        self.drawn = random.Random(seed)
        self.init_images = init_images
        self.samplers = [name for name in SAMPLERS if name in webui.samplers]
        self.checkpoints = [name for name in CHECKPOINTS if name in webui.kind.checkpoints]
        self.made: Counter[str] = Counter()

    def one(self) -> None:
        """A random request, and what must be true of its answer."""
        draw = self.drawn
        kind = draw.choices(("settings", "wrong", "off", "wrong tag"), (14, 2, 3, 1))[0]
        prompt, sampler = draw.choice(PROMPTS), draw.choice(self.samplers)
        request: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": draw.choice(NEGATIVES),
            "seed": draw.randrange(2**32),
            # A1111's UniPC is of third order, and fails in as few steps, of which it makes 0.7 in
            # img2img and in a hires pass.
            "steps": draw.randint(5 if sampler == "UniPC" else 1, 10),
            "cfg_scale": draw.choice((1, 3, 7.5)),
            "width": draw.choice((64, 96)),
            "sampler_name": sampler,
            "batch_size": draw.choice((1, 1, 1, 2)),
            "n_iter": draw.choice((1, 1, 1, 2)),
            "override_settings": {"sd_model_checkpoint": draw.choice(self.checkpoints)},
        }
        if draw.random() < 0.15:
            request |= {"init_images": self.init_images, "denoising_strength": 0.7}
        elif draw.random() < 0.15:
            request |= {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7}
        settings = Settings()
        lazy: Any = None
        if kind == "settings":
            settings = random_settings(draw)
            lazy = as_sent(settings, draw)
            if draw.random() < 0.2:
                request["prompt"] = f"{prompt} {draw.choice(TAGS)}"
        elif kind == "wrong":
            lazy = draw.choice(WRONG)
        elif kind == "wrong tag":
            request["prompt"] = f"{prompt} {draw.choice(WRONG_TAGS)}"
        support = None
        if draw.random() < 0.1:
            kind = draw.choice(("interrupt", "skip"))
            support = {"stop": kind, "at_call": draw.randint(1, 8)}
        self.made[kind] += 1
        made = self.webui(lazy, support, **request)
        if kind in ("interrupt", "skip"):
            return
        assert ("LazyNeg error" in made.params) == kind.startswith("wrong"), (kind, lazy, request)
        told = Settings.from_infotext(infotext.parse(made.infotext).parameters)
        assert told == settings, (lazy, request)


def random_settings(draw: random.Random) -> Settings:
    unit = draw.choice(("steps", "percent"))
    critical = draw.choice((0, 1, 2, 3, 5, 8, 100))
    return Settings.parse(
        {
            "enabled": True,
            "critical_step": critical,
            "unit": unit,
            "stop_step": draw.choice((0, 0, critical + 1, critical + 4)) if critical < 96 else 0,
            "hires": draw.choice(("full", "same", "own")),
            "hires_critical_step": draw.choice((0, 2)),
            "early_prompt": draw.choice(("", "", "low, res: 1", '"quoted"')),
            "area": draw.choice((100, 100, 100, 1, 10, 50)),
            "adaptive": draw.random() < 0.25,
        }
    )


def as_sent(settings: Settings, draw: random.Random) -> list[Any]:
    """The settings in one of the forms that the API takes."""
    values = vars(settings)
    return [values] if draw.random() < 0.5 else list(values.values())


def control(webui: WebUI, about: dict[str, Any]) -> Any:
    return webui(about.get("lazy"), **{k: v for k, v in about.items() if k != "lazy"})


@pytest.fixture(scope="module")
def visit(request: pytest.FixtureRequest, webui: WebUI) -> Iterator[Callable[[], None] | None]:
    """Makes a picture on the page, where there is a browser."""
    from tests.browser.conftest import CHROMIUM, FLAGS, Page

    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    if CHROMIUM is None:
        yield None
        return
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())

        def visit() -> None:
            context = browser.new_context()
            page = Page(context.new_page(), webui, "light")
            page.load()
            page.enable()
            page.set(critical_step=3)
            page.number("#txt2img_steps", 6)
            page.generate()
            assert "LazyNeg critical step: 3" in page.infotext()
            context.close()

        yield visit
        browser.close()


def test_soak(
    webui: WebUI,
    init_images: list[str],
    visit: Callable[[], None] | None,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    requests: int = request.config.getoption("--soak-requests")
    seed: int = request.config.getoption("--soak-seed") or random.randrange(2**32)
    say(capsys, f"seed {seed}, {requests} requests; --soak-seed {seed} makes the same ones")
    known = [control(webui, about) for about in CONTROLS]
    clients = [Client(webui, f"{seed} {i}", init_images) for i in range(CLIENTS)]
    rounds = -(-requests // EVERY)
    memory: list[int] = []
    visits = 0
    with ThreadPoolExecutor(CLIENTS) as together:
        for number in range(rounds):
            runs = [together.submit(many, client, EVERY // CLIENTS) for client in clients]
            if visit is not None and number % 10 == 5:
                visit()
                visits += 1
            for run in runs:
                run.result()
            at = number % len(CONTROLS)
            assert same(control(webui, CONTROLS[at]), known[at]), CONTROLS[at]
            memory.append(webui.get("memory")["ram"]["used"])
    tenth = max(1, rounds // 10)
    # Caches are full by then.
    before, after = (
        statistics.median(memory[at : at + tenth]) for at in (2 * tenth, rounds - tenth)
    )
    made = sum((client.made for client in clients), Counter[str]())
    say(
        capsys,
        f"{sum(made.values())} requests ({dict(made)}), {visits} by the page, {rounds} controls; "
        f"memory {before / 2**20:.0f} MiB after a fifth, {after / 2**20:.0f} MiB at the end, "
        f"{after / before - 1:+.1%}",
    )
    if rounds >= 50:
        assert after <= 1.02 * before


def many(client: Client, number: int) -> None:
    for _ in range(number):
        client.one()


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")
