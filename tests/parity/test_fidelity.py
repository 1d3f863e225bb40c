"""What int8 and int4 experts cost on text that no model here has seen, and how it is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_export import divergence, export
from molkv_export.evaluate import evaluate, open_predictor
from molkv_model.embedded import tiny_checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.session import Session
from tests.small_models import write_checkpoint

if TYPE_CHECKING:
    from tests.conftest import BundleOf, CheckpointOf

PROSE = Path(__file__).with_name("held_out_prose.txt")
IDS = np.random.default_rng(5).integers(0, 320, 150).tolist()  # two sequences


def test_int8_experts_predict_held_out_prose_as_float16_experts_do(tmp_path: Path) -> None:
    exported = {
        experts: export(tiny_checkpoint(), tmp_path / experts, experts=experts)  # type: ignore[arg-type]
        for experts in ("int8", "f16")
    }
    text = PROSE.read_text(encoding="utf-8")
    assert len(set(text.split())) > 350  # prose, not one sentence again and again
    with Session(exported["int8"]) as session:
        ids = session.encode(text)
        result = evaluate(session, ids, against=open_predictor(exported["f16"].path))
    assert result.tokens > 800
    assert 2 < result.loss.mean < 5.5  # the model knows English, and has not seen this text
    assert result.comparison is not None
    assert 0 < result.comparison.kl_divergence.mean <= 0.001
    assert result.comparison.same_top1.mean >= 0.99


def test_int4_experts_stay_near_the_trained_model_on_held_out_prose(tmp_path: Path) -> None:
    """The measured 0.0072 nats and 91.9 %, with four standard errors of room (docs/model.md)."""
    exported = export(tiny_checkpoint(), tmp_path / "int4", experts="int4")
    assert exported.manifest.parity is not None
    assert exported.manifest.parity.passed
    with Session(exported) as session:
        ids = session.encode(PROSE.read_text(encoding="utf-8"))
        result = evaluate(session, ids, against=open_predictor(tiny_checkpoint()))
    assert result.comparison is not None
    assert 0.001 < result.comparison.kl_divergence.mean <= 0.0080 < 0.02
    assert result.comparison.same_top1.mean >= 0.896


@pytest.mark.parametrize("other", ["checkpoint", "bundle"])
@pytest.mark.parametrize("rows", [1, 5, 96])
def test_blocks_of_every_size_give_the_same_evaluation(
    checkpoint_of: CheckpointOf,
    bundle_of: BundleOf,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    other: str,
) -> None:
    path = checkpoint_of("molkv") if other == "checkpoint" else bundle_of("molkv", "f16")
    sizes = []

    def measured(ids: np.ndarray, rows: int) -> object:
        for block in open_predictor(path)(ids, rows):
            sizes.append(len(block))
            yield block

    with Session(Bundle.open(bundle_of("molkv", "int8"))) as session:
        whole = evaluate(session, IDS, against=open_predictor(path))
        monkeypatch.setattr(divergence, "_BLOCK_VALUES", rows * 320)
        blocks = evaluate(session, IDS, against=measured)  # type: ignore[arg-type]
    assert max(sizes) == rows
    assert blocks.tokens == whole.tokens == len(IDS) - 2
    assert blocks.comparison is not None
    assert whole.comparison is not None
    assert 1e-9 < whole.comparison.kl_divergence.mean < 1e-3
    for ours, theirs in (
        (blocks.loss, whole.loss),
        (blocks.comparison.kl_divergence, whole.comparison.kl_divergence),
    ):
        assert dataclasses.astuple(ours) == pytest.approx(dataclasses.astuple(theirs), rel=1e-2)


def test_models_of_two_vocabularies_are_not_compared(bundle_of: BundleOf, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", "dense", vocab_size=400)
    with (
        Session(Bundle.open(bundle_of("molkv", "int8"))) as session,
        pytest.raises(UsageError, match="vocabularies of 320 and 400"),
    ):
        evaluate(session, IDS, against=open_predictor(other))
