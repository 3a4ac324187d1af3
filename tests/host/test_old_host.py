from __future__ import annotations

from pathlib import Path

from .conftest import HERE, ROOT, TITLE, start


def test_a_host_without_the_denoiser(webui_files: tuple[Path, str, Path], tmp_path: Path) -> None:
    """One clear message at start, and nothing else."""
    host, python, data = webui_files
    (tmp_path / "models").symlink_to(data / "models")
    extensions = tmp_path / "extensions"
    extensions.mkdir()
    # The host loads extensions in the order of their names.
    (extensions / "a-old-host").symlink_to(HERE / "old_host")
    (extensions / "lazy-negative").symlink_to(ROOT)
    for webui in start(host, python, tmp_path):
        log = webui.log.read_text(errors="replace")
        assert log.count("Lazy Negative is off: this WebUI is too old") == 1
        assert "Error loading script" not in log
        assert TITLE.lower() not in webui.get("scripts")["txt2img"]
        assert "LazyNeg" not in webui(steps=2).infotext
