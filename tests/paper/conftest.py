"""A scale so small that a run takes a second, and results made of it."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from benchmarks.paper.corpus import CorpusFacts
from benchmarks.paper.study import Row, Scale
from molkv_model.corpus import Corpus, TextFile, train_tokenizer
from tests.model.small_models import small

torch.set_num_threads(1)

VOCABULARY = 280


@pytest.fixture
def scale() -> Scale:
    """12 steps of 4 sequences of 16 tokens."""
    return Scale(
        name="test",
        backbone=small("dense", vocab_size=VOCABULARY),
        tokens=12 * 64,
        batch_tokens=64,
        sequence_length=16,
        learning_rate=3e-3,
        warmup_steps=4,
        evaluations=3,
        validation_sequences=5,
    )


@pytest.fixture
def row(scale: Scale) -> Row:
    """MoLKV at that scale."""
    return Row("test-molkv", "MoLKV", scale, scale.molkv(expert_window=5), (0, 1))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus folder of 1,000 ids, 200 of them held out."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    chosen = random.Random(0)  # noqa: S311 - text, not a secret
    text = " ".join("".join(chosen.choices("abcdefgh", k=6)) for _ in range(300))
    tokenizer = train_tokenizer([TextFile("", text, "")], VOCABULARY)
    tokenizer.save(str(folder / "tokenizer.json"))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (1200,), generator=generator)
    Corpus(ids[200:], ids[:200]).save(folder / "tokens.safetensors")
    facts = CorpusFacts("digest", VOCABULARY, {"test": 5000}, 1000, 200, 3, 1)
    (folder / "corpus.json").write_text(json.dumps(asdict(facts)))
    return folder
