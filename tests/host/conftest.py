"""A real WebUI for the tests, started on small random checkpoints and driven by its HTTP API."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TITLE = "Lazy Negative"

OPTIONS = {
    "show_progress_type": "Approx cheap",
    "live_previews_enable": False,
    "samples_save": False,
    "grid_save": False,
    "sd_model_checkpoint": "sd1.safetensors",
    # The host puts back after a request only what stands in its configuration.
    "CLIP_stop_at_last_layers": 1,
    "batch_cond_uncond": True,
    "emphasis": "Original",
    "pad_cond_uncond": False,
    "pad_cond_uncond_v0": False,
    "persistent_cond_cache": True,
    "skip_early_cond": 0.0,
}


DEFAULTS: dict[str, Any] = {
    "prompt": "girl eating pizza",
    "negative_prompt": "glasses, hat",
    "steps": 8,
    "width": 64,
    "height": 64,
    "seed": 1,
    "cfg_scale": 7.5,
    "sampler_name": "Euler",
}
"""The request that the tests change."""


@dataclass
class Answer:
    """What the API returned for one request."""

    info: dict[str, Any]
    pngs: list[bytes]

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        pictures = [Image.open(io.BytesIO(png)).convert("RGB") for png in self.pngs]
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

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.session = requests.Session()

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
        self.post("options", options)

    def __call__(self, lazy: Any = None, support: Any = None, **payload: Any) -> Answer:
        """Makes pictures. Not naming the extension in the request leaves it off.

        Args:
            lazy: The extension's API arguments.
            support: What the test support extension shall do.
            payload: Changes to the request; with ``init_images`` it goes to img2img.
        """
        request = {**DEFAULTS, **payload}
        scripts = request.setdefault("alwayson_scripts", {})
        if lazy is not None:
            scripts[TITLE] = {"args": lazy}
        if support is not None:
            scripts["Test support"] = {"args": [support]}
        return answered(self.post("img2img" if "init_images" in request else "txt2img", request))


def answered(answer: dict[str, Any]) -> Answer:
    """The API's JSON, unpacked."""
    pngs = [base64.b64decode(image) for image in answer["images"]]
    return Answer(json.loads(answer["info"]), pngs)


def same(left: Answer, right: Answer) -> bool:
    """Whether all pixels agree."""
    return left.pixels.shape == right.pixels.shape and bool((left.pixels == right.pixels).all())


@pytest.fixture(scope="session")
def webui_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Path]:
    """The host's folder, its Python, and a data folder with checkpoints and extensions."""
    if "WEBUI_DIR" not in os.environ:
        pytest.skip("WEBUI_DIR is not set: no WebUI to test on (see CONTRIBUTING.md)")
    host = Path(os.environ["WEBUI_DIR"]).resolve()
    python = os.environ.get("WEBUI_PYTHON", str(host / "venv" / "bin" / "python"))
    data = tmp_path_factory.mktemp("webui")
    made = subprocess.run(
        [python, str(HERE / "make_checkpoints.py"), str(host), str(data)],
        cwd=host,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    extensions = data / "extensions"
    extensions.mkdir(exist_ok=True)
    (extensions / "lazy-negative").symlink_to(ROOT)
    (extensions / "test-support").symlink_to(HERE / "support")
    styles = 'name,prompt,negative_prompt\nclean,,"lowres, blurry"\n'
    (data / "styles.csv").write_text(styles, encoding="utf-8")
    return host, python, data


@pytest.fixture(scope="session")
def webui(webui_files: tuple[Path, str, Path]) -> Iterator[WebUI]:
    host, python, data = webui_files
    yield from start(host, python, data)
    # Some tests ask for failures; none else may have come from our code.
    log = (data / "webui.log").read_text(errors="replace")
    blocks = [block for block in log.split("\n---\n") if "Traceback" in block]
    wanted = ("asked to fail", "is not allowed on this axis")
    ours = [block for block in blocks if "/lazyneg/webui/" in block]
    assert [block for block in ours if not any(text in block for text in wanted)] == []


def start(host: Path, python: str, data: Path) -> Iterator[WebUI]:
    """Starts the WebUI in ``host`` on the models and extensions in ``data``."""
    (data / "config.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = (
        "--skip-prepare-environment --skip-torch-cuda-test --skip-version-check --api "
        "--use-cpu all --no-half --disable-nan-check --no-download-sd-model "
        f"--do-not-download-clip --port {port} --data-dir {data}"
    )
    log = data / "webui.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [python, "launch.py", *flags.split()],
            cwd=host,
            # One thread: small models gain nothing from more, and busy machines lose much.
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        client = WebUI(f"http://127.0.0.1:{port}", log)
        try:
            client.wait(starts=1, server=server)
            client.options(**OPTIONS)
            yield client
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


@pytest.fixture(scope="session")
def init_images(webui: WebUI) -> list[str]:
    return [base64.b64encode(webui(prompt="a balloon", seed=7).pngs[0]).decode()]
