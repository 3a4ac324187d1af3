from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
)

from lazyneg.painting.painter import Painter
from tests.diffusers.tiny import clip_tokenizer


@pytest.fixture
def painter(model: Path) -> Painter:
    return Painter(model, None, [], "cpu", None)


_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_PARTS = {
    "text_config": {
        **_TOWER,
        "vocab_size": 514,
        "max_position_embeddings": 77,
        "bos_token_id": 512,
        "eos_token_id": 513,
        "pad_token_id": 513,
    },
    "vision_config": {**_TOWER, "image_size": 32, "patch_size": 8},
    "projection_dim": 32,
}
_SIZES = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors") / "clip"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(**_PARTS)).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(**_SIZES), clip_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def owl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors") / "owl"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        OwlViTForObjectDetection(OwlViTConfig(**_PARTS)).save_pretrained(folder)
    OwlViTProcessor(OwlViTImageProcessor(**_SIZES), clip_tokenizer()).save_pretrained(folder)
    return folder
