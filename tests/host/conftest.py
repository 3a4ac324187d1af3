"""A real WebUI for the tests, started on small random checkpoints and driven by its HTTP API."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lazyneg import demo
from lazyneg.demo import checkpoint

from . import forge_checkpoints, networks
from .hosts import Host, Kind, installed

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TITLE = "Lazy Negative"

OPTIONS = {
    "show_progress_type": "Approx cheap",
    "live_previews_enable": False,
    "samples_save": False,
    "grid_save": False,
    "sd_model_checkpoint": "sd1.safetensors",
    "forge_preset": "sd",
    # Noise from the CPU is the same whatever else has been drawn.
    "randn_source": "CPU",
    # A host puts back after a request only what has been set.
    "CLIP_stop_at_last_layers": 1,
    "batch_cond_uncond": True,
    "emphasis": "Original",
    "pad_cond_uncond": False,
    "pad_cond_uncond_v0": False,
    "persistent_cond_cache": True,
    "s_min_uncond": 0.0,
    "skip_early_cond": 0.0,
    "sdxl_zero_neg": True,
    # Neo counts a refiner's switch by the noise level otherwise.
    "refiner_use_steps": True,
}
"""Options that the tests set on each host that has them."""


DEFAULTS: dict[str, Any] = {
    "prompt": "girl eating pizza",
    "negative_prompt": "glasses, hat",
    "steps": 8,
    "width": 64,
    "height": 64,
    "seed": 1,
    "cfg_scale": 7.5,
    "sampler_name": "Euler",
    # Forge fails on an infotext without them.
    "styles": [],
}
"""The request that the tests change."""


@dataclass(repr=False)
class Answer:
    """What the API returned for one request."""

    info: dict[str, Any]
    pngs: list[bytes]

    def __repr__(self) -> str:
        return f"<{len(self.pngs)} pictures: {self.infotext!r}>"

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        return self.pixels_of(range(len(self.pngs)))

    def pixels_of(self, places: Iterable[int]) -> NDArray[np.uint8]:
        """Pixels of some of the pictures, where a grid of another size is among them."""
        pictures = [Image.open(io.BytesIO(self.pngs[i])).convert("RGB") for i in places]
        return np.stack([np.asarray(picture) for picture in pictures])

    @property
    def infotext(self) -> str:
        """The text of the first picture, as it stands in its PNG file."""
        return str(Image.open(io.BytesIO(self.pngs[0])).info["parameters"])

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.info["extra_generation_params"]
        return params


class WebUI:
    """A running WebUI, as an API client sees it."""

    def __init__(self, url: str, log: Path, kind: Kind) -> None:
        self.url = url
        self.log = log
        self.kind = kind
        self.session = requests.Session()
        # Neo cuts the connection after a request that failed.
        self.session.headers["Connection"] = "close"

    @cached_property
    def known_options(self) -> set[str]:
        return set(self.get("options"))

    @cached_property
    def schedules(self) -> set[str]:
        return {schedule["label"] for schedule in self.get("schedulers")}

    @cached_property
    def samplers(self) -> set[str]:
        return {sampler["name"] for sampler in self.get("samplers")}

    @cached_property
    def upscaler(self) -> str:
        """The hires pass' upscaler: in the latents, where the host can."""
        return "Latent" if self.get("latent-upscale-modes") else "None"

    def starts(self) -> int:
        """How often the host says it has built its page."""
        return self.log.read_text(errors="replace").count("Startup time:")

    def wait(self, starts: int, server: subprocess.Popen[bytes] | None = None) -> None:
        """Until the page is built. A request that comes before stops the host's start."""
        for _ in range(600):
            if self.starts() >= starts:
                return
            if server is not None and server.poll() is not None:
                break
            time.sleep(0.5)
        raise AssertionError(self.log.read_text(errors="replace")[-5000:])

    def get(self, path: str) -> Any:
        response = self.session.get(f"{self.url}/sdapi/v1/{path}", timeout=300)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, payload: dict[str, Any]) -> Any:
        response = self.session.post(f"{self.url}/sdapi/v1/{path}", json=payload, timeout=300)
        assert response.ok, f"{response.status_code}: {response.text}"
        return response.json()

    def options(self, **options: object) -> None:
        """Sets options, leaving out those that the host does not have."""
        # Some hosts do not list those of extensions.
        wanted = {k: v for k, v in options.items() if k in self.known_options or "lazyneg" in k}
        self.post("options", wanted)

    def request(self, **payload: Any) -> dict[str, Any]:
        """The payload of a request, with what this host wants besides."""
        request = {**DEFAULTS, "alwayson_scripts": {}, **payload}
        if request.get("enable_hr"):
            request = {"hr_upscaler": self.upscaler, **dict(self.kind.hires), **request}
        return request

    def __call__(self, lazy: Any = None, support: Any = None, **payload: Any) -> Answer:
        """Makes pictures. Not naming the extension in the request leaves it off.

        Args:
            lazy: The extension's API arguments.
            support: What the test support extension shall do.
            payload: Changes to the request; with ``init_images`` it goes to img2img.
        """
        request = self.request(**payload)
        scripts = request["alwayson_scripts"] = dict(request["alwayson_scripts"])
        if lazy is not None:
            scripts[TITLE] = {"args": lazy}
        if support is not None:
            scripts["Test support"] = {"args": [support]}
        return answered(self.post("img2img" if "init_images" in request else "txt2img", request))

    def again(self, infotext: str) -> Answer:
        """Makes a picture by the API's field for an infotext."""
        payload = {
            "infotext": infotext,
            # A1111 stumbles over what it writes where the hires pass uses the same sampler, and
            # Forge over an infotext without these two.
            "hr_sampler_name": "Euler",
            "styles": [],
            **{key: value for key, value in self.kind.hires if key != "hr_cfg"},
        }
        return answered(self.post("txt2img", payload))


def answered(answer: dict[str, Any]) -> Answer:
    """The API's JSON, unpacked."""
    pngs = [base64.b64decode(image) for image in answer["images"]]
    return Answer(json.loads(answer["info"]), pngs)


def same(left: Answer, right: Answer) -> bool:
    """Whether all pixels agree."""
    return left.pixels.shape == right.pixels.shape and bool((left.pixels == right.pixels).all())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the extension takes from a host is compared with it before anything else."""
    items.sort(key=lambda item: item.path.stem != "test_contract")


HOSTS: list[Host | None] = [*installed()]


@pytest.fixture(scope="session", params=HOSTS or [None], ids=lambda host: host and host.kind.name)
def host(request: pytest.FixtureRequest) -> Host:
    """Each WebUI that there is to test on."""
    found: Host | None = request.param
    if found is None:
        pytest.skip("WEBUI_DIR is not set: no WebUI to test on (see CONTRIBUTING.md)")
    return found


@pytest.fixture(scope="session")
def data(host: Host) -> Iterator[Path]:
    """A data folder for the host, with checkpoints and extensions."""
    # Not pytest's own, which keeps those of several runs: some checkpoints are large.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        write_models(host, data)
        install(data, {"lazy-negative": ROOT, "test-support": HERE / "support"})
        styles = 'name,prompt,negative_prompt\nclean,,"lowres, blurry"\ntagged,,<lazyneg:2>\n'
        (data / "styles.csv").write_text(styles, encoding="utf-8")
        yield data


def write_models(host: Host, data: Path) -> None:
    """Writes small checkpoints and networks into a data folder."""
    if host.kind.forge:
        forge_checkpoints.write_sd1(data)
    else:
        made = subprocess.run(
            [host.python, str(HERE / "make_checkpoints.py"), str(host.folder), str(data)],
            cwd=host.folder,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stderr
    networks.write_embedding(data, forge_checkpoints.TEXT if host.kind.forge else 64)
    networks.write_lora(data)


def install(data: Path, extensions: Mapping[str, Path]) -> None:
    """Puts extensions into a data folder, by the names of their folders there."""
    (data / "extensions").mkdir(exist_ok=True)
    for name, folder in extensions.items():
        (data / "extensions" / name).symlink_to(folder)


@pytest.fixture(scope="session")
def webui(host: Host, data: Path, request: pytest.FixtureRequest) -> Iterator[WebUI]:
    with contextmanager(start)(host, data) as webui:
        recorder = request.config.pluginmanager.get_plugin("host-results")
        if recorder is not None:
            recorder.versions[host.kind.name] = webui(steps=1).infotext.split("Version: ")[-1]
        yield webui
    # Some tests ask for failures; none else may have come from our code.
    log = (data / "webui.log").read_text(errors="replace")
    wanted = ("asked to fail", "is not allowed on this axis")
    ours = [block for block in tracebacks(log) if "/lazyneg/webui/" in block]
    assert [block for block in ours if not any(text in block for text in wanted)] == []


def tracebacks(log: str) -> list[str]:
    """The tracebacks in a host's log, each with the line that names the error."""
    return re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)+.*", log)


def start(host: Host, data: Path) -> Iterator[WebUI]:
    """Starts a WebUI on the models and extensions in ``data``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = data / "webui.log"
    flags = [*host.kind.flags.split(), "--port", str(port), "--data-dir", str(data)]
    # With a data folder elsewhere, some hosts do not let a browser have their own scripts.
    flags += ["--gradio-allowed-path", str(host.folder)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [host.python, "launch.py", *flags],
            cwd=host.folder,
            # One thread: small models gain nothing from more, and busy machines lose much.
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                "GRADIO_ANALYTICS_ENABLED": "False",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        client = WebUI(f"http://127.0.0.1:{port}", log, host.kind)
        try:
            client.wait(starts=1, server=server)
            # A full-sized autoencoder would take most of the time of a small picture.
            client.options(**OPTIONS, sd_vae_decode_method=host.kind.preview)
            yield client
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


@pytest.fixture(scope="module")
def embedded(webui: WebUI, data: Path) -> Iterator[WebUI]:
    """The host with the embedded model."""
    if webui.kind.forge:
        pytest.skip(f"{webui.kind.name} knows no model of these shapes")
    checkpoint.copy_to(data / "models" / "Stable-diffusion")
    webui.post("refresh-checkpoints", {})
    webui.options(sd_model_checkpoint=demo.CHECKPOINT.name)
    yield webui
    webui.options(sd_model_checkpoint="sd1.safetensors", samples_format="png")


@pytest.fixture
def decoded(webui: WebUI) -> Iterator[None]:
    """Pictures decoded by the checkpoint's own autoencoder: in their full size, and more alive."""
    webui.options(sd_vae_decode_method="Full")
    yield
    webui.options(sd_vae_decode_method=webui.kind.preview)


@pytest.fixture
def inpainting(webui: WebUI, decoded: None) -> dict[str, Any]:
    """A request that repaints the middle of a picture. Of a cheaply decoded one, whose pixels are
    the latents, Neo's small checkpoint makes the same whatever it is asked for.
    """
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((16, 16, 48, 48), fill=255)
    file = io.BytesIO()
    mask.save(file, "PNG")
    pngs = (webui(prompt="a balloon", seed=7).pngs[0], file.getvalue())
    picture, shape = (base64.b64encode(png).decode() for png in pngs)
    return {"init_images": [picture], "mask": shape, "denoising_strength": 0.8, "steps": 10}


@pytest.fixture(scope="session")
def init_images(webui: WebUI) -> list[str]:
    return [base64.b64encode(webui(prompt="a balloon", seed=7).pngs[0]).decode()]
