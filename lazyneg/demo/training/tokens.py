"""The tokenizer: CLIP's, with a vocabulary of its own in which each word is one token."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from lazyneg.demo import scenes
from lazyneg.demo.architecture import TOKENS
from lazyneg.demo.captions import caption

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def build(folder: Path, samples: int = 20_000) -> None:
    """Writes a tokenizer's files.

    Args:
        folder: Where to write them.
        samples: Number of captions to collect the words from. Other texts are spelled.
    """
    random = Random(0)
    texts = [caption(scenes.sample(random), random)[0] for _ in range(samples)]
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
        ),
    )
    merges = json.loads(trained.to_str())["model"]["merges"]
    merged = (first + second for first, second in merges)
    tokens = dict.fromkeys([*bytes_, *(f"{byte}</w>" for byte in bytes_), *merged])
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate([*tokens, _BEGIN, _END])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"unk_token": _END, "bos_token": _BEGIN, "eos_token": _END, "pad_token": _END}
    about = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", "utf-8")


def load(folder: Path) -> Any:
    """The tokenizer in a folder."""
    return CLIPTokenizer.from_pretrained(folder)


def misspelled(text: str, random: Random) -> str:
    """Puts a word without meaning somewhere into a text."""
    words = text.split(" ")
    noise = "".join(random.choice(_LETTERS) for _ in range(random.randint(2, 7)))
    words.insert(random.randint(0, len(words)), noise)
    return " ".join(words).strip()
