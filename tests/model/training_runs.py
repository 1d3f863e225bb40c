"""Training runs small enough for a test, and what they leave behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from molkv_model.training import TrainingConfig, TrainingProgress, train
from tests.model.small_models import small

VOCABULARY = 280
STATE = "training-state/state.safetensors"


def settings(
    file: Path, out: Path, *, architecture: str = "molkv", **changes: Any
) -> TrainingConfig:
    """12 steps of 4 sequences of 16 tokens, evaluated after each 4."""
    config = TrainingConfig(
        model=small(architecture, vocab_size=VOCABULARY),
        text=(file,),
        out=out,
        tokens=12 * 64,
        batch_tokens=64,
        sequence_length=16,
        warmup_steps=4,
        save_dtype="float32",
        evaluate_every=4,
    )
    return dataclasses.replace(config, **changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    expected = weights(second)
    for name, value in weights(first).items():
        assert torch.equal(value, expected[name]), name


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def tokenizer_size(folder: Path) -> int:
    size: int = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    return size


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Interruption(Exception):  # noqa: N818 - no error, as far as the run is concerned
    """Ends a run from outside."""


def train_until(step: int, config: TrainingConfig) -> None:
    def interrupt(progress: TrainingProgress) -> None:
        if progress.step >= step:
            raise Interruption

    with pytest.raises(Interruption):
        train(config, interrupt)
