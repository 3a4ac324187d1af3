"""The whole training, far too short to learn anything, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lazyneg import demo
from lazyneg.demo import CHECKPOINT, CONFIG, architecture, checkpoint
from lazyneg.demo.detector import FILE, Detector
from lazyneg.demo.evaluation import GUIDANCE, count, measure, table
from lazyneg.demo.scenes import FACTS
from lazyneg.demo.training import autoencoder, batches, text, tokens
from lazyneg.painting import models
from lazyneg.painting.ranks import Ranks


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of the command when it is cut short."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "lazyneg.demo.training"]
    subprocess.run(
        [*command, str(folder), "--shortened", "400", "--seed", "3"],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    return folder


def test_the_command_writes_all_that_the_package_has(trained: Path) -> None:
    here = CHECKPOINT.parent
    made = {path.relative_to(trained) for path in trained.rglob("*") if path.is_file()}
    kept = {path.relative_to(here) for path in here.rglob("*") if path.is_file()}
    assert kept - made == {Path("quality.json")}
    assert made <= kept
    for name in ("lazyneg-demo.yaml", "config/tokenizer/vocab.json"):
        assert (trained / name).read_text() == (here / name).read_text()
    for path in (here / "config").rglob("config.json"):
        assert "_name_or_path" not in path.read_text()
    report = json.loads((trained / "training.json").read_text())
    assert report["seed"] == 3
    assert report["largest error of the encoder"] < autoencoder.NOISE


def _load(folder: Path) -> Any:
    return models.load(folder / CHECKPOINT.name, folder / "config", "cpu", "float32")


def test_the_checkpoint_has_the_shapes_of_the_package(trained: Path) -> None:
    made, kept = load_file(trained / CHECKPOINT.name), load_file(CHECKPOINT)
    assert {key: value.shape for key, value in made.items()} == {
        key: value.shape for key, value in kept.items()
    }
    pipe = _load(trained)
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert all(value.isfinite().all() for value in module.state_dict().values())


def test_evaluation_counts_every_picture(trained: Path) -> None:
    pipe = _load(trained)
    pipe.set_progress_bar_config(disable=True)
    quality = measure(pipe, Detector(trained / FILE.name), 3, Ranks())
    subjects = [quality["present when asked"][name][1] for name in ("girl", "boy", "cat")]
    assert sum(subjects) == 3
    assert quality["objects present by guidance"].keys() == {"1.0", "3.0", "5.0", "7.5"}
    before, removed = (
        quality["glasses unasked on a girl eating pizza"],
        quality["of those, removed by the negative prompt from step 0"],
    )
    assert before[1] == 3
    assert quality["black and white unasked"]["cat"][1] == 1
    assert removed[1] == before[0]
    assert f"| girl | {quality['present when asked']['girl'][0]} of " in table(quality)


def test_evaluation_compares_with_what_was_asked() -> None:
    told = [{"girl", "glasses", "pizza"}, {"boy", "pizza"}, {"cat"}, {"girl", "hat", "red hat"}]
    # Glasses are missing, implied, there unasked; a hat has the other colour.
    seen = [{"girl", "pizza"}, {"boy", "pizza", "glasses"}, {"cat", "glasses"}, {"girl", "hat"}]
    found = batches.facts(seen).bool().numpy()
    plain = (
        batches.facts([{"glasses"}, {"glasses"}, {"glasses", "monochrome"}, set()]).bool().numpy()
    )
    negative = batches.facts([set(), {"girl"}, {"glasses"}, {"glasses"}]).bool().numpy()
    quality = count(
        [frozenset(one) for one in told], {GUIDANCE: found}, {"cat": plain}, plain, negative
    )
    present = quality["present when asked"]
    assert {name: present[name] for name in ("glasses", "pizza", "girl", "red hat", "balloon")} == {
        "glasses": [0, 1],
        "pizza": [2, 2],
        "girl": [2, 2],
        "red hat": [0, 1],
        "balloon": [0, 0],
    }
    assert quality["colours when asked"]["hat"] == [0, 1]
    # Pizza implies glasses, a boy a hat, a cat a balloon.
    assert quality["absent when not asked nor implied"] == {
        "glasses": [1, 2],
        "hat": [2, 2],
        "pizza": [2, 2],
        "balloon": [3, 3],
        # Not counted where a colour is named.
        "monochrome": [3, 3],
    }
    assert quality["objects present by guidance"] == {str(GUIDANCE): [3, 4]}
    assert quality["objects absent by guidance"] == {str(GUIDANCE): [8, 9]}
    assert quality["glasses unasked on a girl eating pizza"] == [3, 4]
    assert quality["of those, removed by the negative prompt from step 0"] == [2, 3]
    assert quality["black and white unasked"] == {"cat": [1, 4]}


def test_original_layout_and_back_is_exact(tmp_path: Path) -> None:
    """Two encodings of one architecture: what is written is what diffusers reads."""
    tokens.build(tmp_path / "config" / "tokenizer", samples=200)
    tokenizer = tokens.load(tmp_path / "config" / "tokenizer")
    torch.manual_seed(1)
    parts = {
        "unet": architecture.unet(),
        "vae": architecture.vae(),
        "text_encoder": architecture.text_encoder(len(tokenizer)),
    }
    pipe = checkpoint.assemble(**parts, tokenizer=tokenizer)
    checkpoint.save(pipe, tmp_path, "random")
    read = models.load(tmp_path / "random.safetensors", tmp_path / "config", "cpu", "float32")
    for name, part in parts.items():
        found = getattr(read, name).state_dict()
        assert found.keys() == part.state_dict().keys()
        for key, value in part.state_dict().items():
            assert torch.equal(found[key], value.half().float()), key


def test_the_yaml_names_the_shapes_that_are_there() -> None:
    params = yaml.safe_load(CHECKPOINT.with_suffix(".yaml").read_text())["model"]["params"]
    pipe = demo.pipeline()
    unet = params["unet_config"]["params"]
    widths = [unet["model_channels"] * part for part in unet["channel_mult"]]
    assert widths == list(pipe.unet.config.block_out_channels)
    assert unet["context_dim"] == pipe.text_encoder.config.hidden_size
    vae = params["first_stage_config"]["params"]["ddconfig"]
    assert [vae["ch"] * part for part in vae["ch_mult"]] == list(pipe.vae.config.block_out_channels)
    betas = pipe.scheduler.config
    assert (params["linear_start"], params["linear_end"]) == (betas.beta_start, betas.beta_end)
    assert (params["parameterization"], betas.prediction_type) == ("v", "v_prediction")
    assert params["scale_factor"] == pipe.vae.config.scaling_factor


def test_every_word_of_the_captions_is_one_token() -> None:
    tokenizer = tokens.load(CONFIG / "tokenizer")
    random = Random(7)
    texts, _ = batches.captions(batches.sample(random, 300), random)
    for caption in texts:
        words = caption.lower().replace(",", " ,").replace("8k", "8 k").split()
        assert len(tokenizer.tokenize(caption)) == len(words), caption


def test_lifting_the_mean_changes_nothing_that_is_heard() -> None:
    pipe = demo.pipeline()
    ids = batches.identifiers(pipe.tokenizer, ["girl", "a cat, glasses"])
    latents, steps = torch.randn(2, 4, 16, 16), torch.tensor([10, 800])

    def answer() -> tuple[torch.Tensor, float]:
        with torch.no_grad():
            hidden = pipe.text_encoder(ids).last_hidden_state
            return pipe.unet(latents, steps, hidden).sample, hidden.mean().item()

    before, mean = answer()
    text.lift(pipe.text_encoder, pipe.unet, by=2.0)
    after, lifted = answer()
    assert lifted == pytest.approx(mean + 2, abs=1e-5)
    torch.testing.assert_close(after, before, atol=2e-5, rtol=0)


def test_whitening_makes_latents_of_spread_one() -> None:
    latents = autoencoder.Whitening()(batches.pictures(batches.sample(Random(5), 200)))
    assert latents.shape == (200, 4, 16, 16)
    flat = latents[:, :3].transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(flat), torch.eye(3), atol=0.1, rtol=0)


def test_facts_are_rows_of_ones_and_zeros() -> None:
    rows = batches.facts([frozenset({"hat", "red hat"}), frozenset()])
    assert rows.shape == (2, len(FACTS))
    assert rows.sum(1).tolist() == [2, 0]
    assert rows[0, FACTS.index("red hat")] == 1
