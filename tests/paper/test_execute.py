"""A run of the study leaves one result, the same whether it was interrupted or not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import execute as module
from benchmarks.paper.costs import bytes_per_token, multiply_adds
from benchmarks.paper.errors import StudyError
from benchmarks.paper.execute import execute, training_config
from benchmarks.paper.results import Result, read_results
from benchmarks.paper.study import ROWS, TABLES, Row, Run
from molkv_model.training import TrainingProgress
from tests.model.training_runs import Interruption


def run_alone(run: Run, corpus: Path, work: Path, results: Path) -> Result:
    result = execute(run, corpus, work, results)
    assert result is not None
    return result


def timeless(result: Result) -> Result:
    return dataclasses.replace(result, seconds=0.0)


def test_a_result_has_what_the_tables_need(row: Row, corpus: Path, tmp_path: Path) -> None:
    result = run_alone(Run(row, 1), corpus, tmp_path / "work", tmp_path / "results")
    assert (result.row, result.scale, result.seed) == ("test-molkv", "test", 1)
    assert result.model == row.model.to_json()
    assert result.corpus == "digest"
    assert result.tokens == 12 * 64
    assert result.training["precision"] == row.scale.precision
    assert [tokens for tokens, _ in result.curve] == [4 * 64, 8 * 64, 12 * 64]
    assert result.validation_loss == result.curve[-1][1]
    assert [tokens for tokens, _ in result.training_curve] == [4 * 64, 8 * 64, 10 * 64, 12 * 64]
    assert result.bytes_per_token == bytes_per_token(row.model)
    assert result.multiply_adds == multiply_adds(row.model)
    assert result.age_bias is not None
    assert [len(bias) for bias in result.age_bias] == [5, 5]
    assert result.seconds > 0
    assert "torch" in result.machine
    assert read_results(tmp_path / "results") == [result]


@pytest.mark.parametrize("interrupted_at", [4, 10])
def test_an_interrupted_run_gives_the_same_result(
    interrupted_at: int, row: Row, corpus: Path, tmp_path: Path
) -> None:
    run, results = Run(row, 0), tmp_path / "results"

    def interrupt(progress: TrainingProgress) -> None:
        if progress.step >= interrupted_at:
            raise Interruption

    with pytest.raises(Interruption):
        execute(run, corpus, tmp_path / "work", results, interrupt)
    assert not results.exists()
    assert training_config(run, corpus, tmp_path / "work").resume
    steps: list[int] = []
    resumed = execute(run, corpus, tmp_path / "work", results, lambda p: steps.append(p.step))
    assert min(steps) > 4
    assert resumed is not None
    whole = run_alone(run, corpus, tmp_path / "other", tmp_path / "whole")
    assert timeless(resumed) == timeless(whole)


def test_an_interrupted_run_of_other_settings_is_begun_anew(
    row: Row, corpus: Path, tmp_path: Path
) -> None:
    def interrupt(progress: TrainingProgress) -> None:
        if progress.step >= 4:
            raise Interruption

    with pytest.raises(Interruption):
        execute(Run(row, 0), corpus, tmp_path / "work", tmp_path / "results", interrupt)
    state = tmp_path / "work" / "test-molkv-seed0" / "training-state" / "state.safetensors"
    assert training_config(Run(row, 0), corpus, tmp_path / "work").resume
    changed = dataclasses.replace(row, model=dataclasses.replace(row.model, expert_window=7))
    assert training_config(Run(changed, 0), corpus, tmp_path / "work").force
    result = run_alone(Run(changed, 0), corpus, tmp_path / "work", tmp_path / "results")
    assert [tokens for tokens, _ in result.curve] == [4 * 64, 8 * 64, 12 * 64]
    state.parent.mkdir()
    state.write_bytes(b"damaged")
    assert training_config(Run(changed, 0), corpus, tmp_path / "work").force


def test_a_loss_is_never_that_of_an_earlier_evaluation(
    row: Row, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = module.train

    def killed_before_the_last_line(*arguments: Any) -> Any:
        trained = genuine(*arguments)
        metrics = trained.out / "metrics.jsonl"
        metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
        return trained

    monkeypatch.setattr(module, "train", killed_before_the_last_line)
    with pytest.raises(StudyError, match=r"metrics\.jsonl: has no evaluation after 768 tokens"):
        execute(Run(row, 0), corpus, tmp_path / "work", tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"row": "a"}'])
def test_a_damaged_result_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(StudyError, match=r"a\.json: .*train the row again"):
        read_results(tmp_path)


def test_a_run_without_a_corpus_says_how_it_is_made(row: Row, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"corpus\.json: .*benchmarks\.paper corpus ROW"):
        execute(Run(row, 0), tmp_path / "none", tmp_path / "work", tmp_path / "results")


def test_a_result_is_not_made_twice_unless_its_row_changed(
    row: Row, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_alone(Run(row, 0), corpus, tmp_path / "work", tmp_path / "results")
    genuine = module.train
    monkeypatch.setattr(module, "train", None)
    assert execute(Run(row, 0), corpus, tmp_path / "work", tmp_path / "results") == first
    monkeypatch.setattr(module, "train", genuine)
    wider = dataclasses.replace(row, model=dataclasses.replace(row.model, expert_window=7))
    second = run_alone(Run(wider, 0), corpus, tmp_path / "work", tmp_path / "results")
    assert second.model["expert_window"] == 7
    assert read_results(tmp_path / "results") == [second]


def test_a_result_is_a_short_json_file(row: Row, corpus: Path, tmp_path: Path) -> None:
    result = run_alone(Run(row, 0), corpus, tmp_path / "work", tmp_path / "results")
    file = tmp_path / "results" / "test-molkv-seed0.json"
    assert json.loads(file.read_text())["validation_loss"] == result.validation_loss
    assert Result.read(file) == result
    assert len(file.read_text().splitlines()) == len(dataclasses.fields(Result)) + 2


def test_every_row_of_every_table_can_be_trained() -> None:
    for table in TABLES.values():
        assert table.rows
        for name in table.rows:
            assert ROWS[name].name == name
            assert ROWS[name].seeds
