"""`molkv train`: what it prints, what it refuses, and what its model card says it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import molkv

TEXT = "We the people of the United States ask the Congress for peace and commerce. " * 80
SETTINGS = (
    *("vocab_size=300", "hidden_size=32", "num_attention_heads=2", "expert_window=16"),
    *("num_key_value_heads=2", "num_hidden_layers=1", "intermediate_size=32"),
    *("expert_intermediate_size=16", "max_position_embeddings=128"),
)
SMALL = (
    *("--tokens", "4096", "--batch-tokens", "512", "--sequence-length", "64"),
    *(part for setting in SETTINGS for part in ("--set", setting)),
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(TEXT)
    return folder


def texts(corpus: Path) -> list[str]:
    return [f"corpus/{file.name}" for file in sorted(corpus.glob("*.txt"))]


def test_train_export_and_run_go_together(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "checkpoint"
    result = molkv("train", "--text", *texts(corpus), "--out", out, *SMALL, "--json", cwd=tmp_path)
    report = json.loads(result.stdout)
    assert report["validation_loss"] > 0
    assert f"validation loss {report['validation_loss']:.1f}"[:-2] in result.stderr
    card = (out / "README.md").read_text()
    assert f"{report['validation_loss']:.4f} nats a token" in card
    molkv("export", out, "--out", tmp_path / "bundle")
    assert molkv("run", tmp_path / "bundle", "--prompt", "We the", "--max-tokens", 4).stdout


def test_the_summary_is_on_standard_output(corpus: Path, tmp_path: Path) -> None:
    arguments = ("train", "--text", *texts(corpus), "--out", "a [b] folder", *SMALL)
    result = molkv(*arguments, cwd=tmp_path)
    assert "Trained a [b] folder" in result.stdout
    assert "validation loss of the saved weights" in result.stdout
    assert "step 8 of 8" in result.stderr


def test_the_card_states_the_command_with_the_pattern_that_was_typed(
    corpus: Path, tmp_path: Path
) -> None:
    arguments = ["train", "--text", *texts(corpus), "--out", "first", *SMALL]
    molkv(*arguments, "--json", cwd=tmp_path)
    typed = " ".join(["molkv", "train", "--text", "corpus/*.txt", "--out", "first", *SMALL])
    assert typed in (tmp_path / "first" / "README.md").read_text().splitlines()
    two = texts(corpus)[:2]
    molkv("train", "--text", *two, "--out", "second", *SMALL, cwd=tmp_path)
    typed = " ".join(["molkv", "train", "--text", *two, "--out", "second", *SMALL])
    assert typed in (tmp_path / "second" / "README.md").read_text().splitlines()


def test_earlier_work_is_replaced_with_force_only(corpus: Path, tmp_path: Path) -> None:
    arguments = ("train", "--text", *texts(corpus), "--out", "checkpoint", *SMALL)
    molkv(*arguments, cwd=tmp_path)
    weights = tmp_path / "checkpoint" / "model.safetensors"
    before = weights.read_bytes()
    result = molkv(*arguments, "--seed", 1, cwd=tmp_path, code=2)
    assert "checkpoint: exists already and is not empty" in result.stderr
    assert "--resume" in result.stderr
    assert weights.read_bytes() == before
    molkv(*arguments, "--seed", 1, "--force", cwd=tmp_path)
    assert weights.read_bytes() != before


def test_defaults_are_those_of_the_library() -> None:
    from molkv_model.training_config import TrainingConfig

    shown = molkv("train", "--help", environment={"COLUMNS": "200"}).stdout
    for name in ("tokens", "batch_tokens", "sequence_length", "learning_rate", "seed"):
        (line,) = [line for line in shown.splitlines() if f"--{name.replace('_', '-')} " in line]
        assert f"[default: {getattr(TrainingConfig, name)}]" in line
