"""Training on token ids that were encoded before, each of them once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from molkv_model.corpus import Corpus
from molkv_model.errors import TrainingError
from molkv_model.modeling import LanguageModel
from molkv_model.training import TrainingConfig, train
from tests.model.training_runs import (
    VOCABULARY,
    assert_same_weights,
    settings,
    train_until,
)


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """1,000 ids to train on, of which no run of four is there twice, and 200 held-out ones."""
    file = tmp_path / "ids.safetensors"
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(0, VOCABULARY, (1000,), generator=generator)
    Corpus(training, torch.arange(200)).save(file)
    return file


@pytest.fixture
def config(ids: Path, tokenizer: Path, text: Path, tmp_path: Path) -> TrainingConfig:
    changes: dict[str, Any] = {"text": (), "corpus": ids, "tokenizer": tokenizer}
    return settings(text, tmp_path / "out", batches="once", **changes)


def test_ids_come_back_as_they_were_saved(ids: Path) -> None:
    corpus = Corpus.load(ids)
    assert corpus.training.dtype == corpus.validation.dtype == torch.int32
    assert corpus.validation.tolist() == list(range(200))
    assert corpus.largest_id() == max(corpus.training.tolist())


@pytest.mark.parametrize(
    ("training", "named"),
    [(None, "cannot be read"), ([], "holds no tokens"), ([3, -1], "negative token id")],
)
def test_a_corpus_that_cannot_be_trained_on_is_named(
    config: TrainingConfig, ids: Path, training: list[int] | None, named: str
) -> None:
    ids.unlink()
    if training is not None:
        Corpus(torch.tensor(training, dtype=torch.int64), torch.arange(200)).save(ids)
    with pytest.raises(TrainingError, match=rf"{re.escape(str(ids))}: .*{named}"):
        train(config)


def test_no_token_is_read_twice(
    config: TrainingConfig, ids: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    genuine = LanguageModel.forward

    def recording(self: LanguageModel, input_ids: torch.Tensor) -> torch.Tensor:
        if self.training:
            seen.extend(tuple(row.tolist()) for row in input_ids)
        return genuine(self, input_ids)

    monkeypatch.setattr(LanguageModel, "forward", recording)
    train(config)
    training = Corpus.load(ids).training.tolist()
    pieces = [tuple(training[start : start + 16]) for start in range(0, 1000, 16)]
    places = [pieces.index(row) for row in seen]
    assert len(places) == len(set(places)) == 12 * 4
    assert places != sorted(places)


def test_another_seed_reads_in_another_order_and_the_same_in_the_same(
    config: TrainingConfig, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(dataclasses.replace(config, out=tmp_path / name, seed=seed))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "a", tmp_path / "c")


def test_an_interrupted_run_reads_on_where_it_stopped(
    config: TrainingConfig, tmp_path: Path
) -> None:
    train(config)
    resumed = dataclasses.replace(config, out=tmp_path / "resumed")
    train_until(8, resumed)
    train(dataclasses.replace(resumed, resume=True))
    assert_same_weights(tmp_path / "out", tmp_path / "resumed")


def test_more_tokens_than_there_are_cannot_be_read_once(config: TrainingConfig) -> None:
    with pytest.raises(TrainingError, match=r"tokens is 1024, the training text has 1000"):
        train(dataclasses.replace(config, tokens=16 * 64))


def test_other_ids_are_another_run(config: TrainingConfig, ids: Path) -> None:
    train_until(4, config)
    Corpus(torch.arange(1000) % VOCABULARY, torch.arange(200)).save(ids)
    with pytest.raises(TrainingError, match="other settings, text or tokenizer"):
        train(dataclasses.replace(config, resume=True))


def test_an_id_outside_of_the_vocabulary_is_named(config: TrainingConfig, ids: Path) -> None:
    Corpus(torch.full((1000,), VOCABULARY), torch.arange(200)).save(ids)
    with pytest.raises(TrainingError, match=r"ids\.safetensors: has token id 280, vocab_size is"):
        train(config)


def test_a_file_of_something_else_is_named(config: TrainingConfig, ids: Path) -> None:
    save_file({"training": torch.zeros(4), "validation": torch.zeros(4)}, ids)
    with pytest.raises(TrainingError, match=r"ids\.safetensors: holds torch\.float32 \[4\]"):
        train(config)
    ids.write_bytes(b"text")
    with pytest.raises(TrainingError, match=r"ids\.safetensors: cannot be read"):
        train(dataclasses.replace(config, force=True))


def test_ids_need_their_tokenizer_and_no_text(config: TrainingConfig, text: Path) -> None:
    for change in ({"tokenizer": None}, {"text": (text,)}):
        with pytest.raises(TrainingError, match=r"corpus is .*give token ids with the tokenizer"):
            dataclasses.replace(config, **change)


def test_as_many_held_out_sequences_are_scored_as_asked_for(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = 0
    genuine = LanguageModel.forward

    def counting(self: LanguageModel, input_ids: torch.Tensor) -> torch.Tensor:
        nonlocal scored
        scored += 0 if self.training else len(input_ids)
        return genuine(self, input_ids)

    monkeypatch.setattr(LanguageModel, "forward", counting)
    train(dataclasses.replace(config, validation_sequences=5, evaluate_every=12))
    assert scored == 2 * 5  # after the last step, and once more as saved
