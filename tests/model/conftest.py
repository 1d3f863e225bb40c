"""What training is tried on. The models are so small that a second thread only costs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from molkv_model.corpus import TextFile, train_tokenizer
from tests.model.training_runs import VOCABULARY

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that a few letters predict, so that there is something to learn."""
    chosen = random.Random(0)  # noqa: S311 - text, not a secret
    words = ["".join(chosen.choices("abcdefgh", k=6)) for _ in range(20)]
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text(" ".join(chosen.choices(words, k=3000)))
    return file


@pytest.fixture(scope="session")
def tokenizer(text: Path) -> Path:
    """What training would make of the text."""
    file = text.with_name("tokenizer.json")
    train_tokenizer([TextFile.read(text)], VOCABULARY).save(str(file))
    return file
