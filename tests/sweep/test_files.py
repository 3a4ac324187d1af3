"""Whole files, or none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyneg.painting import pictures
from lazyneg.sweep import files


def test_tells_whole_pictures_from_broken_ones(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    png = io.BytesIO()
    pictures.save(Image.fromarray(noise), png, "girl\nSteps: 1")
    data = png.getvalue()
    path = tmp_path / "picture.png"
    assert not files.is_whole(path)
    files.write(path, data)
    assert files.is_whole(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert not files.is_whole(path), length
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not files.is_whole(path), place


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "text"
    files.write(path, b"old")
    with pytest.raises(TypeError):
        files.write(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
