"""A run writes into its own folder only, and leaves a whole checkpoint there or none."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from molkv_model import load, training
from molkv_model.checkpoint import Checkpoint, save
from molkv_model.corpus import TextFile, train_tokenizer
from molkv_model.errors import CheckpointError, TrainingError
from molkv_model.modeling import LanguageModel
from molkv_model.training import TrainingProgress, train
from tests.model.small_models import random_model, small
from tests.model.training_runs import (
    VOCABULARY,
    contents,
    metrics,
    settings,
    tokenizer_size,
    train_until,
    weights,
)


def test_the_checkpoint_is_complete(text: Path, tmp_path: Path) -> None:
    config = settings(text, tmp_path, save_dtype="float16")
    result = train(config)
    model = load(tmp_path)
    assert model.config == config.model
    assert weights(tmp_path)["model.norm.weight"].dtype == torch.float16
    tokenizer = Tokenizer.from_file(str(Checkpoint(tmp_path).tokenizer_file))
    assert tokenizer.get_vocab_size() == VOCABULARY
    card = (tmp_path / "README.md").read_text()
    assert f"{result.validation_loss:.4f} nats" in card
    assert f"| tokens seen | {result.tokens:,}: each training position" in card
    assert f"| parameters | {result.parameters:,} before" in card
    assert f"| text | 1 files, {text.stat().st_size:,} bytes: " in card
    assert "| seed | 0 |" in card


def test_two_files_of_the_same_name_are_two_files_on_the_card(text: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / text.name
    other.write_text(text.read_text()[::-1])
    train(settings(text, tmp_path / "out", text=(text, other)))
    assert "| text | 2 files, " in (tmp_path / "out" / "README.md").read_text()


def test_a_fresh_run_does_not_continue_the_files_of_an_earlier_one(
    text: Path, tmp_path: Path
) -> None:
    config = settings(text, tmp_path)
    train(config)
    train_until(4, dataclasses.replace(config, seed=1, force=True))
    assert [line["step"] for line in metrics(tmp_path)] == [4]


@pytest.mark.parametrize("kept", ["training-state", "config.json", "anything.txt"])
def test_a_folder_that_holds_something_is_not_written_to(
    kept: str, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train(settings(text, out))
    for path in out.iterdir():
        if path.name != kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kept == "anything.txt":
        (out / kept).write_text("mine")
    before = contents(out)
    with pytest.raises(TrainingError, match=f"^{out}: exists already and is not empty") as raised:
        train(settings(text, out, seed=1))
    assert "--resume" in raised.value.fix
    assert "--force" in raised.value.fix
    assert contents(out) == before


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_force_replaces_runs_and_checkpoints_only(name: str, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"model_type": "llama"}')
    with pytest.raises(TrainingError, match="neither a training run nor a checkpoint"):
        train(settings(text, out, force=True))
    assert contents(out) == {name: b'{"model_type": "llama"}'}
    with pytest.raises(TrainingError, match=f"^{text}: is not a folder"):
        train(settings(text, text, force=True))


def test_resume_and_force_together_are_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="resume and force are both on"):
        settings(text, tmp_path, resume=True, force=True)


def test_the_earlier_checkpoint_stays_whole_until_a_forced_run_is_complete(
    text: Path, tmp_path: Path
) -> None:
    train(settings(text, tmp_path))
    names = ("model.safetensors", "config.json", "tokenizer.json", "README.md")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    other = small(vocab_size=VOCABULARY - 10)
    config = settings(text, tmp_path, model=other, force=True)
    train_until(4, config)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    train(dataclasses.replace(config, force=False, resume=True))
    assert load(tmp_path).config == other
    assert tokenizer_size(tmp_path) == VOCABULARY - 10


def test_a_first_run_that_was_interrupted_leaves_no_file_of_a_checkpoint(
    text: Path, tmp_path: Path
) -> None:
    train_until(4, settings(text, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "training-state"]
    with pytest.raises(CheckpointError):
        load(tmp_path)


def test_a_run_begun_with_a_tokenizer_keeps_it_for_resuming(
    text: Path, tokenizer: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    shutil.copyfile(tokenizer, given)
    config = settings(text, tmp_path / "out", tokenizer=given)
    train_until(4, config)
    given.unlink()
    train(dataclasses.replace(config, tokenizer=None, resume=True))
    assert (tmp_path / "out/tokenizer.json").read_bytes() == tokenizer.read_bytes()


def test_the_reported_loss_is_that_of_the_saved_weights(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding is made coarse, so that the loss of what was saved is far from the last step's."""
    seen: list[TrainingProgress] = []
    genuine = training.save

    def coarse(model: LanguageModel, path: Path, **options: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_((parameter * 4).round() / 4)
        genuine(model, path, **options)

    monkeypatch.setattr(training, "save", coarse)
    result = train(settings(text, tmp_path, save_dtype="float16"), seen.append)
    assert seen[-1].validation_loss is not None
    assert abs(result.validation_loss - seen[-1].validation_loss) > 0.01
    assert f"| {result.validation_loss:.4f} nats" in (tmp_path / "README.md").read_text()


def test_the_card_states_the_command_and_compares_on_the_same_text(
    text: Path, tokenizer: Path, tmp_path: Path
) -> None:
    baseline = train(settings(text, tmp_path / "dense", architecture="dense", tokenizer=tokenizer))
    command = "molkv train --text words.txt"
    changes = {"tokenizer": tokenizer, "compare": (tmp_path / "dense",), "command": command}
    result = train(settings(text, tmp_path / "molkv", **changes))
    lines = (tmp_path / "molkv/README.md").read_text().splitlines()
    assert command in lines
    (header,) = [line for line in lines if line.startswith("| model |")]
    assert header.count("after") == 2
    for name, of in (("molkv", result), ("dense", baseline)):
        (row,) = [line for line in lines if line.startswith(f"| {name} | ")]
        history = [f"{line['validation_loss']:.4f}" for line in metrics(tmp_path / name)[:2]]
        cells = [name, f"{of.parameters:,}", *history, f"{of.validation_loss:.4f}"]
        assert row == f"| {' | '.join(cells)} |"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"vocab_size": VOCABULARY + 1}, "vocab_size is 281, this run's is 280"),
        ({"max_position_embeddings": 8}, "max_position_embeddings is 8, less than"),
    ],
)
def test_a_checkpoint_that_the_text_cannot_be_scored_with_is_refused_before_any_work(
    other: dict[str, Any], message: str, text: Path, tmp_path: Path
) -> None:
    save(random_model(small(**{"vocab_size": VOCABULARY, **other})), tmp_path / "other")
    with pytest.raises(TrainingError, match=message):
        train(settings(text, tmp_path / "out", compare=(tmp_path / "other",)))
    assert not (tmp_path / "out").exists()


def test_a_given_tokenizer_is_used_and_goes_along(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.json"
    train_tokenizer([TextFile.read(text)], 260).save(str(given))
    monkeypatch.setattr("molkv_model.training.train_tokenizer", None)
    train(settings(text, tmp_path / "out", tokenizer=given))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == given.read_bytes()


def test_a_run_that_ends_as_its_last_state_is_saved_has_every_line(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(text, tmp_path)
    genuine = training.save_state

    def interrupted(*arguments: Any, step: int, **others: Any) -> None:
        genuine(*arguments, step=step, **others)
        if step == config.steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(training, "save_state", genuine)
    train(dataclasses.replace(config, resume=True))
    steps = [line["step"] for line in metrics(tmp_path)]
    assert steps == sorted(set(steps))
    assert steps[-1] == config.steps
