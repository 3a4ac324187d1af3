from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor, OwlViTForObjectDetection, OwlViTProcessor

from lazyneg.sweep.detectors import DetectorError, ZeroShot, known_in

RED, BLUE = Image.new("RGB", (48, 32), "red"), Image.new("RGB", (32, 32), "blue")


def test_clip_weighs_each_text_against_its_other(clip_folder: Path) -> None:
    detector = ZeroShot("clip", clip_folder, ["glasses", "a hat|a head"], "cpu")
    found = detector([RED, BLUE])
    model = CLIPModel.from_pretrained(clip_folder)
    processor = CLIPProcessor.from_pretrained(clip_folder)
    for column, texts in enumerate([["glasses", "no glasses"], ["a hat", "a head"]]):
        inputs = processor(text=texts, images=[RED, BLUE], return_tensors="pt", padding=True)
        with torch.no_grad():
            wanted = model(**inputs).logits_per_image.softmax(dim=1)[:, 0]
        assert np.allclose(found[:, column], wanted.numpy(), atol=1e-5)
    assert found.shape == (2, 2)
    assert not np.allclose(found[0], found[1])


def test_owl_takes_the_surest_box(owl_folder: Path) -> None:
    found = ZeroShot("owl", owl_folder, ["glasses", "hat"], "cpu")([RED, BLUE])
    model = OwlViTForObjectDetection.from_pretrained(owl_folder)
    processor = OwlViTProcessor.from_pretrained(owl_folder)
    for row, image in enumerate([RED, BLUE]):
        for column, words in enumerate(["glasses", "hat"]):
            inputs = processor(text=[words], images=image, return_tensors="pt")
            with torch.no_grad():
                wanted = model(**inputs).logits.sigmoid().max()
            assert found[row, column] == pytest.approx(float(wanted), abs=1e-5)


def test_errors_name_the_folder(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DetectorError, match="nowhere is not a model of transformers"):
        ZeroShot("clip", tmp_path / "nowhere", ["glasses"], "cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DetectorError, match="cannot be loaded for owl"):
        ZeroShot("owl", tmp_path, ["glasses"], "cpu")


@pytest.mark.parametrize(
    ("negative", "names"),
    [
        ("wearing Glasses, sunglasses", ["glasses"]),
        ("hat and glasses", ["glasses", "hat"]),
        ("red hat", ["red hat"]),
        ("red hat, hat", ["hat", "red hat"]),
        ("chat, ugly", []),
    ],
)
def test_finds_what_a_negative_prompt_names(negative: str, names: list[str]) -> None:
    assert known_in(negative, ["glasses", "hat", "red hat", "balloon"]) == names
