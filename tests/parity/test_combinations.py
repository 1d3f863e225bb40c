"""Combinations of precisions: what is evaluated is what `export` makes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_export import ExportError
from molkv_export import combinations as module
from molkv_export.combinations import combinations, evaluate_combinations, require_room
from molkv_export.divergence import Comparison, Estimate
from molkv_export.evaluate import Evaluation, evaluate, open_predictor
from molkv_export.fidelity import Combination, Fidelity, Footprint, pareto_front
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.session import Session
from molkv_runtime.text import load_tokenizer
from tests.small_models import write_checkpoint

if TYPE_CHECKING:
    from tests.conftest import BundleOf, CheckpointOf

IDS = np.random.default_rng(5).integers(0, 300, 150).tolist()  # two sequences


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_figures_are_those_of_exported_bundles(
    checkpoint_of: CheckpointOf,
    bundle_of: BundleOf,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = Checkpoint(checkpoint_of("molkv+tokenizer"))
    trained = open_predictor(checkpoint.path, remember=True)
    chosen = combinations(checkpoint, ["f16", "int8"], ["fp32", "int4"], ["int8", "fp32"])
    written = []

    def counted(*arguments: object) -> object:
        written.append(arguments[2])
        return write_blob(*arguments)  # type: ignore[arg-type]

    write_blob = module.write_blob
    monkeypatch.setattr(module, "write_blob", counted)
    assert checkpoint.tokenizer_file is not None
    tokenizer = load_tokenizer(checkpoint.tokenizer_file)
    results = evaluate_combinations(checkpoint, chosen, IDS, against=trained, tokenizer=tokenizer)
    assert written == ["f16", "int8"]
    assert not list(temporary.iterdir())
    assert [result.combination for result in results] == chosen
    assert len(results) == 8

    for result in results:
        experts, dense, cache = result.name.split("/")
        bundle = Bundle.open(bundle_of("molkv+tokenizer", experts, dense=dense, cache=cache))
        assert Combination.of(bundle, "onnx") == result.combination
        assert Footprint.of(bundle, "onnx") == result.footprint
        with Session(bundle) as session:
            assert evaluate(session, IDS, against=trained) == result.evaluation


def test_sizes_are_those_of_the_files(bundle_of: BundleOf) -> None:
    folder = bundle_of("molkv", "int8")
    footprint = Footprint.of(Bundle.open(folder), "onnx")
    graph = [folder / "dense.onnx", folder / "dense.onnx.data"]
    assert footprint.dense_bytes == sum(file.stat().st_size for file in graph)
    assert footprint.blob_bytes == (folder / "experts.molkv").stat().st_size
    assert footprint.total_bytes == footprint.dense_bytes + footprint.blob_bytes
    with Bundle.open(folder).open_experts() as blob:  # type: ignore[union-attr]
        assert footprint.bytes_per_token == blob.header.row_stride


def test_a_model_without_experts_has_one_precision_less(
    checkpoint_of: CheckpointOf, temporary: Path
) -> None:
    checkpoint = Checkpoint(checkpoint_of("dense"))
    chosen = combinations(checkpoint)
    assert len(chosen) == len(set(chosen)) == 6
    assert {combination.experts for combination in chosen} == {None}
    require_room(checkpoint, chosen)
    trained = open_predictor(checkpoint.path)
    (result,) = evaluate_combinations(checkpoint, chosen[:1], IDS, against=trained, tokenizer=None)
    assert result.name == "none/fp32/fp32"
    assert (result.footprint.blob_bytes, result.footprint.bytes_per_token) == (0, 0)
    assert result.nats is not None
    assert abs(result.nats.mean) < 1e-6
    assert not list(temporary.iterdir())


def test_precisions_that_the_model_cannot_have_are_left_out_unless_named(tmp_path: Path) -> None:
    narrow = Checkpoint(write_checkpoint(tmp_path / "narrow", "dense", hidden_size=48, **HEADS))
    assert {combination.dense for combination in combinations(narrow)} == {"fp32"}
    with pytest.raises(ExportError, match="hidden_size"):
        combinations(narrow, dense=["fp32", "int8"])


HEADS = {"num_attention_heads": 3, "num_key_value_heads": 3}


@pytest.mark.parametrize("what", ["experts", "dense", "cache"])
def test_an_unknown_precision_is_named_with_the_choice(
    checkpoint_of: CheckpointOf, what: str
) -> None:
    with pytest.raises(ExportError, match=f"{what} is 'int3'") as raised:
        combinations(Checkpoint(checkpoint_of("molkv")), **{what: ["int8", "int3"]})
    assert "int8" in raised.value.fix


def fidelity(name: str, size: int, nats: float | None) -> Fidelity:
    estimate = Estimate(nats or 0, 0, 1)
    comparison = None if nats is None else Comparison(estimate, estimate)
    evaluation = Evaluation(1, estimate, comparison)
    return Fidelity(name, Combination(None, "fp32", "fp32"), Footprint(size, 0, 0), evaluation)


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    results = [
        fidelity("larger and better", 30, 0.001),
        fidelity("larger and as good", 20, 0.01),
        fidelity("smallest", 10, 0.01),
        fidelity("as small and worse", 10, 0.02),
        fidelity("larger and worse", 25, 0.5),
        fidelity("as large and better", 30, 0.0001),
        fidelity("not compared", 1, None),
    ]
    assert [result.name for result in pareto_front(results)] == ["smallest", "as large and better"]
