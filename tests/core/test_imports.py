from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["lazyneg", "lazyneg.window", "lazyneg.settings", "lazyneg.conditioning"]
)
def test_the_core_imports_neither_front(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "print([name for name in ('diffusers', 'transformers', 'gradio', 'modules') "
        "if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
