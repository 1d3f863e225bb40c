"""`--experts auto`: what it measures, and which precision it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from molkv_export import ExportError, choose_experts, expert_choice, export
from molkv_export.evaluate import evaluate, open_predictor
from molkv_export.expert_choice import MOST_TOKENS
from molkv_export.expert_precisions import row_bytes, row_precisions
from molkv_model.checkpoint import Checkpoint
from molkv_model.embedded import tiny_checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import TokenizerError, UsageError
from molkv_runtime.session import Session
from tests.small_models import edit_weights, write_checkpoint

if TYPE_CHECKING:
    from molkv_runtime.row_geometry import ExpertPrecision
    from tests.conftest import BundleOf, CheckpointOf

TEXT = "The whale spoke to the Congress of the ship, and the President swam past. " * 8


PROSE = Path(__file__).with_name("held_out_prose.txt").read_text(encoding="utf-8")
# Nats a token, and share of the same best token.
LIMITS = {"f16": (1e-6, 0.99), "int8": (0.001, 0.99), "int4": (0.02, 0.896)}


def test_rows_of_the_embedded_model_predict_held_out_prose_as_its_networks_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tiny_checkpoint()
    for precision, (nats, same) in LIMITS.items():
        monkeypatch.setattr(expert_choice, "row_precisions", lambda _, only=precision: [only])
        choice = choose_experts(path, PROSE, max_kl=nats)
        assert choice.tokens > 1000
        (trial,) = choice.trials
        assert trial.comparison is not None
        assert trial.comparison.same_top1.mean >= same


@pytest.mark.parametrize("kind", ["molkv", "molkv-key-gelu-untied", "mole"])
def test_the_measured_divergence_is_that_of_an_exported_bundle(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    checkpoint = checkpoint_of(f"{kind}+tokenizer")
    choice = choose_experts(checkpoint, TEXT, max_kl=1)
    trial = choice.trials[0]
    bundle = Bundle.open(bundle_of(f"{kind}+tokenizer", choice.experts))
    with Session(bundle) as session:
        ids = session.encode(TEXT)
        result = evaluate(session, ids, against=open_predictor(checkpoint))
    assert trial.comparison is not None
    assert result.comparison is not None
    measured, expected = trial.comparison.kl_divergence, result.comparison.kl_divergence
    assert choice.tokens == result.tokens == measured.count
    assert 1e-7 < expected.mean < 1
    assert measured.mean == pytest.approx(expected.mean, rel=0.02)


def test_the_smallest_rows_under_the_limit_are_taken(checkpoint_of: CheckpointOf) -> None:
    path = checkpoint_of("molkv+tokenizer")
    config = Checkpoint(path).config
    smallest_first = row_precisions(config)
    sizes = [row_bytes(config, precision) for precision in smallest_first]
    assert len(sizes) >= 2
    assert sizes == sorted(sizes)

    first = choose_experts(path, TEXT, max_kl=1)
    assert first.experts == smallest_first[0]
    assert [trial.row_bytes for trial in first.trials] == sizes[:1]

    assert first.trials[0].comparison is not None
    below = first.trials[0].comparison.kl_divergence.mean / 2
    stricter = choose_experts(path, TEXT, max_kl=below)
    tried = [trial.experts for trial in stricter.trials]
    assert tried == smallest_first[: len(tried)]
    assert len(tried) >= 2
    assert stricter.experts == tried[-1]
    figures = [trial.comparison.kl_divergence.mean for trial in stricter.trials]  # type: ignore[union-attr]
    assert figures[-1] <= below < min(figures[:-1])


def test_a_limit_that_none_meets_is_named_with_the_figures(checkpoint_of: CheckpointOf) -> None:
    path = checkpoint_of("molkv+tokenizer")
    with pytest.raises(ExportError, match="under 1e-13 nats") as raised:
        choose_experts(path, TEXT, max_kl=1e-13)
    for precision in row_precisions(Checkpoint(path).config):
        assert f"{precision} " in raised.value.problem
    assert "--max-kl" in raised.value.fix


def test_a_precision_that_cannot_hold_the_values_is_passed_over(
    tmp_path: Path, tokenizer_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if float16 rows were the smallest, so that they are tried first."""
    monkeypatch.setattr(expert_choice, "row_precisions", lambda _: ["f16", "int8"])
    path = write_checkpoint(tmp_path / "large", tokenizer=tokenizer_file)
    edit_weights(path, "model.layers.0.experts.down_proj", 1e9)
    choice = choose_experts(path, TEXT, max_kl=1)
    assert choice.experts == "int8"
    assert choice.trials[0].comparison is None
    assert "float16 ends at 65504" in choice.trials[0].problem
    monkeypatch.setattr(expert_choice, "row_precisions", lambda _: ["f16"])
    with pytest.raises(ExportError, match="f16: an expert value is"):
        choose_experts(path, TEXT, max_kl=1)


def test_a_long_text_is_used_up_to_a_number_of_tokens(checkpoint_of: CheckpointOf) -> None:
    path = checkpoint_of("molkv+tokenizer")
    steps = []
    choose_experts(path, TEXT * 100, max_kl=1, on_tokens=lambda *step: steps.append(step))
    assert {total for _, _, total in steps} == {MOST_TOKENS}
    assert {name for name, done, total in steps if done == total} == {
        "trained experts",
        f"{row_precisions(Checkpoint(path).config)[0]} experts",
    }


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_nothing_can_meet_is_refused(
    checkpoint_of: CheckpointOf, limit: float
) -> None:
    with pytest.raises(ExportError, match="limit of the KL divergence"):
        choose_experts(checkpoint_of("molkv+tokenizer"), TEXT, max_kl=limit)


def test_what_is_missing_is_named_before_any_work(
    checkpoint_of: CheckpointOf, tokenizer_file: Path
) -> None:
    with pytest.raises(TokenizerError, match="no tokenizer") as raised:
        choose_experts(checkpoint_of("molkv"), TEXT)
    assert "--tokenizer" in raised.value.fix
    assert choose_experts(checkpoint_of("molkv"), TEXT, max_kl=1, tokenizer=tokenizer_file)
    with pytest.raises(ExportError, match="no experts"):
        choose_experts(checkpoint_of("dense+tokenizer"), TEXT)
    with pytest.raises(UsageError, match="0 tokens"):
        choose_experts(checkpoint_of("molkv+tokenizer"), "")


def test_a_choice_of_other_rows_than_are_written_is_refused(
    checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of("molkv+tokenizer")
    choice = choose_experts(checkpoint, TEXT, max_kl=1)
    other: ExpertPrecision = "f16" if choice.experts != "f16" else "int8"
    with pytest.raises(ExportError, match=f"experts is {other}, but {choice.experts} was chosen"):
        export(checkpoint, tmp_path / "bundle", experts=other, choice=choice)
    assert not (tmp_path / "bundle").exists()
