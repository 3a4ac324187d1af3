"""Textual inversions in the layouts that people have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lazyneg.painting.models import ModelError, load_embeddings
from tests.diffusers.tiny import pipeline

VECTORS = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
LARGE = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))


def written(path: Path, tensors: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def learnt(pipe: Any, token: str, suffix: str = "") -> list[torch.Tensor]:
    """The vectors that an encoder has for a word of two."""
    tokenizer = getattr(pipe, f"tokenizer{suffix}")
    weights = getattr(pipe, f"text_encoder{suffix}").get_input_embeddings().weight
    names = pipe.maybe_convert_prompt(token, tokenizer).split()
    return [weights[tokenizer.convert_tokens_to_ids(name)].detach() for name in names]


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("new.pt", VECTORS),
        ("new.pt", {"other": VECTORS}),
        ("new.pt", {"string_to_param": {"*": VECTORS}, "name": "other", "step": 5}),
        ("new.bin", {"<new>": VECTORS}),
        ("new.safetensors", {"emb_params": VECTORS}),
    ],
)
def test_one_tensor(tmp_path: Path, name: str, tensors: Any) -> None:
    pipe = pipeline("sd")
    load_embeddings(pipe, [written(tmp_path / name, tensors)])
    assert torch.equal(torch.stack(learnt(pipe, "new")), VECTORS)


@pytest.mark.parametrize("name", ["new.pt", "new.safetensors"])
def test_two_encoders(tmp_path: Path, name: str) -> None:
    pipe = pipeline("sdxl")
    load_embeddings(pipe, [written(tmp_path / name, {"clip_g": LARGE, "clip_l": VECTORS})])
    assert torch.equal(torch.stack(learnt(pipe, "new")), VECTORS)
    assert torch.equal(torch.stack(learnt(pipe, "new", "_2")), LARGE)
    call = {"prompt": "girl", "num_inference_steps": 2, "output_type": "np"}
    pictures = [
        pipe(**call, negative_prompt=negative, generator=torch.Generator().manual_seed(0)).images
        for negative in ("new", "ugly")
    ]
    assert (pictures[0] != pictures[1]).any()


def test_one_of_two_encoders(tmp_path: Path) -> None:
    pipe = pipeline("sdxl")
    load_embeddings(pipe, [written(tmp_path / "new.safetensors", {"clip_g": LARGE})])
    assert torch.equal(torch.stack(learnt(pipe, "new", "_2")), LARGE)


def garbage(path: Path) -> Path:
    path.write_bytes(b"no embedding at all")
    return path


@pytest.mark.parametrize(
    ("family", "name", "make", "message"),
    [
        (
            "sd",
            "new.safetensors",
            lambda path: written(path, {"clip_l": VECTORS, "clip_g": LARGE}),
            "the model has no text_encoder_2",
        ),
        (
            "sd",
            "new.pt",
            lambda path: written(path, {"a": VECTORS, "b": VECTORS}),
            r"it has 'a' of \[2, 32\], 'b' of \[2, 32\]; allowed: one tensor of vectors",
        ),
        (
            "sd",
            "new.pt",
            lambda path: written(path, {"string_to_param": {"*": VECTORS[:, :8].clone()}}),
            "its vectors have 8 numbers; allowed: 32",
        ),
        (
            "sdxl",
            "new.pt",
            lambda path: written(path, {"clip_l": VECTORS, "clip_g": LARGE[:, :7].clone()}),
            "its vectors have 7 numbers; allowed: 32, as the model's text_encoder_2 has",
        ),
        ("sd", "new.pt", lambda path: written(path, {"a": 5}), r"it has 'a' of \['int'\]; allowed"),
        ("sd", "new.pt", lambda path: written(path, {}), "it has nothing; allowed"),
        ("sd", "new.pt", lambda path: written(path, [VECTORS]), "it has list; allowed"),
        ("sd", "new.pt", lambda path: written(path, torch.ones(1, 2, 32)), "it has .*; allowed"),
        ("sd", "new.pt", garbage, "cannot be used"),
        ("sd", "new.safetensors", garbage, "cannot be used"),
    ],
)
def test_errors_never_print_tensors(
    tmp_path: Path, family: str, name: str, make: Callable[[Path], Path], message: str
) -> None:
    pipe = pipeline(family)
    path = make(tmp_path / name)
    with pytest.raises(ModelError, match=message) as caught:
        load_embeddings(pipe, [path])
    assert str(path) in str(caught.value)
    assert "tensor(" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_same_word_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "new.pt", VECTORS)
    with pytest.raises(ModelError, match=r"Token new already in tokenizer vocabulary"):
        load_embeddings(pipeline("sd"), [path, path])
