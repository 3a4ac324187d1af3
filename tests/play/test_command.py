"""The command: what it listens on, what it asks for, what it says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

pytest.importorskip("gradio", reason="gradio is not installed")

RUN = """
import sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("asked for", *args[-1 if event == "socket.connect" else 0:], file=sys.stderr)

sys.addaudithook(watch)
from lazyneg.cli import app
app(["play", *sys.argv[1:]])
"""


def test_serves_this_machine_only_and_asks_nobody(model: Path) -> None:
    command = [sys.executable, "-c", RUN, "--model", str(model), "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:(\d+)/", run.stdout.readline())
        try:
            assert url
            assert requests.get(url[0], timeout=60).ok
            # Another address of this machine.
            with socket.socket() as other:
                assert other.connect_ex(("127.0.0.2", int(url[1]))) != 0
        finally:
            run.terminate()
        _, errors = run.communicate()
    asked = {line for line in errors.splitlines() if line.startswith("asked for")}
    assert asked
    assert [line for line in asked if not re.search(r"127\.0\.0\.1|localhost", line)] == []


def test_a_port_that_is_taken_is_told(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "lazyneg", "play", "--model", str(model), "--port", port],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_without_gradio_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['gradio'] = None; from lazyneg.cli import app; app(['play'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: gradio is missing: pip install 'lazyneg[play]'\n"
