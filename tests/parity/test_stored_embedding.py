"""With the input embedding in the expert rows, a bundle computes what it computes without."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from molkv_export import ExportError, export
from molkv_export.expert_pass import ExpertPass
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint
from molkv_model.ranks import Ranks
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import RowCorruptError
from molkv_runtime.session import Session
from tests.cli.command import molkv
from tests.small_models import edit_weights, write_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.conftest import BundleOf, CheckpointOf

UNTIED = "molkv-key-gelu-untied"
TABLE = "model.embed_tokens.weight"
TINY = Path(str(files("molkv_model"))) / "checkpoints" / "tiny"
IDS = np.random.default_rng(5).integers(0, 320, 60)


def logits_of(folder: Path, ids: NDArray[np.int64] = IDS, **options: object) -> NDArray[np.float32]:
    bundle = Bundle.open(folder, verify_checksums=False)
    with Session(bundle, threads=1, chunk=16, **options) as session:  # type: ignore[arg-type]
        return session.logits(ids)


def graph_of(folder: Path) -> onnx.ModelProto:
    return onnx.load(str(folder / "dense.onnx"), load_external_data=False)


@pytest.mark.parametrize(
    ("kind", "dense"), [(UNTIED, None), (UNTIED, "int8"), ("mole-published", None)]
)
def test_the_dense_graph_has_no_table_and_the_ladder_passes(
    bundle_of: BundleOf, kind: str, dense: str | None
) -> None:
    with_table = bundle_of(kind, dense=dense)
    without = bundle_of(kind, dense=dense, embedding="storage")
    graphs = [graph_of(folder).graph for folder in (with_table, without)]
    inputs = [{entry.name for entry in graph.input} for graph in graphs]
    assert inputs[0] - inputs[1] == {"input_ids"}
    assert inputs[1] - inputs[0] == {"embeddings"}
    weights = [{entry.name for entry in graph.initializer} for graph in graphs]
    assert {name for name in weights[0] - weights[1] if not name.startswith(TABLE)} == set()
    assert any(name.startswith(TABLE) for name in weights[0])
    assert not any(name.startswith(TABLE) for name in weights[1])
    manifest = Bundle.open(without).manifest
    assert manifest.quantization.embedding == "f16"
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert {rung.name[0] for rung in manifest.parity.rungs} == set("123456")


@pytest.mark.parametrize("kind", [UNTIED, "mole-published"])
def test_rows_carry_the_trained_embedding_rounded_to_float16(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    checkpoint = Checkpoint(checkpoint_of(kind))
    blob = Bundle.open(bundle_of(kind, embedding="storage")).open_experts()
    plain = Bundle.open(bundle_of(kind)).open_experts()
    assert blob is not None
    assert plain is not None
    with blob, plain:
        ids = np.arange(320)
        rows, others = blob.read(ids).rows, plain.read(ids).rows
        stored = blob.layout.embeddings(rows)
        expected = checkpoint.tensor(TABLE).numpy().astype(np.float16)
        assert stored is not None
        assert stored.tobytes() == expected.tobytes()
        # All else in a row is what it is without.
        end = blob.layout.geometry.layers * blob.layout.layer_size
        assert rows[:, :end].tobytes() == others[:, :end].tobytes()


def test_logits_are_those_of_a_graph_whose_table_is_rounded(
    tmp_path: Path, bundle_of: BundleOf
) -> None:
    """A table of float16 numbers in the graph, and the same numbers from the rows."""
    checkpoint = write_checkpoint(tmp_path / "rounded", UNTIED)
    weights = Checkpoint(checkpoint).tensor(TABLE)
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    tensors[TABLE] = weights.to(torch.float16).to(torch.float32)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    export(checkpoint, tmp_path / "graph")
    export(checkpoint, tmp_path / "storage", embedding="storage")
    expected, found = logits_of(tmp_path / "graph"), logits_of(tmp_path / "storage")
    assert found.tobytes() == expected.tobytes()
    # Rounding itself is seen, so the comparison above is not of two graphs that ignore it.
    exact = logits_of(bundle_of(UNTIED))
    assert 0 < np.abs(exact - found).max() < 0.1


def test_the_embedded_model_gives_the_same_tokens_with_and_without(tmp_path: Path) -> None:
    """Its checkpoint is stored in float16, so that nothing at all may differ."""
    arguments = ["export", TINY, "--experts", "int4", "--json"]
    for place in ("graph", "storage"):
        result = molkv(*arguments, "--out", tmp_path / place, "--embedding", place)
        assert json.loads(result.stdout)["passed"]
        # Its head is its embedding, and needs the table.
        assert ("no smaller" in result.stderr) == (place == "storage")
    golden = [
        json.loads((tmp_path / place / "golden.json").read_text()) for place in ("graph", "storage")
    ]
    assert golden[0]["cases"] == golden[1]["cases"]
    assert sum(len(case["greedy"]) for case in golden[0]["cases"]) > 100
    ids = np.array(golden[0]["cases"][-1]["prompt_ids"])
    left, right = (logits_of(tmp_path / place, ids) for place in ("graph", "storage"))
    assert left.tobytes() == right.tobytes()


def test_both_engines_and_both_ways_to_keep_rows_give_the_same_logits(bundle_of: BundleOf) -> None:
    folder = bundle_of(UNTIED, "f16", embedding="storage")
    native = logits_of(folder)
    assert np.abs(logits_of(folder, engine="reference") - native).max() < 1e-4
    assert logits_of(folder, experts_mode="resident").tobytes() == native.tobytes()


def test_a_damaged_embedding_is_found_when_its_row_is_read(
    bundle_of: BundleOf, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle_of(UNTIED, embedding="storage"), tmp_path / "bundle"))
    blob = Bundle.open(folder).open_experts()
    assert blob is not None
    with blob:
        section = blob.layout.embedding_section
        assert section is not None
        position = blob.header.data_offset + 7 * blob.layout.row_stride + section.offset
    with (folder / "experts.molkv").open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(RowCorruptError, match="token id 7"):
        logits_of(folder, np.array([3, 7, 3]))


def test_a_model_without_experts_has_no_rows_for_it(
    checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    message = "embedding is storage, but the model has no experts"
    with pytest.raises(ExportError, match=message):
        export(checkpoint_of("dense"), tmp_path / "bundle", embedding="storage")
    with pytest.raises(ExportError, match=message):
        make_plan(Checkpoint(checkpoint_of("dense")), "int8", embedding="storage")
    with pytest.raises(ExportError, match=r"embedding is 'ram' .*graph, storage"):
        export(checkpoint_of(UNTIED), tmp_path / "bundle", embedding="ram")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_embedding_that_float16_cannot_hold_is_refused_and_named(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", UNTIED)
    edit_weights(checkpoint, TABLE, 7e4, place=64 * 300)
    message = r"token ids 0 to 319: an embedding value is 70000, float16 ends at 65504 .*graph"
    with pytest.raises(ExportError, match=message):
        export(checkpoint, tmp_path / "bundle", embedding="storage")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize("kind", [UNTIED, "mole-published", "molkv"])
def test_the_plan_tells_what_it_adds_and_saves(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    checkpoint = Checkpoint(checkpoint_of(kind))
    without, plan = (
        make_plan(checkpoint, "int8", embedding=place)  # type: ignore[arg-type]
        for place in ("graph", "storage")
    )
    assert (without.embedding_bytes_per_token, without.embedding_saved_bytes) == (0, {"onnx": 0})
    added = plan.bytes_per_token - without.bytes_per_token
    assert plan.embedding_bytes_per_token == added
    assert plan.row_bytes - without.row_bytes == 2 * 64
    assert plan.window_bytes == without.window_bytes
    folder = bundle_of(kind, embedding="storage")
    assert plan.files["experts.molkv"] == (folder / "experts.molkv").stat().st_size
    real = [(path / "dense.onnx.data").stat().st_size for path in (bundle_of(kind), folder)]
    # A head that is the embedding keeps the table.
    table = 0 if kind == "molkv" else 320 * 64 * 4
    assert real[0] - real[1] == plan.embedding_saved_bytes["onnx"] == table
    assert without.dense_parameters - plan.dense_parameters == table // 4


def test_rows_without_embeddings_are_not_continued_with_them(checkpoint_of: CheckpointOf) -> None:
    checkpoint = Checkpoint(checkpoint_of(UNTIED))
    facts = [
        ExpertPass(checkpoint, "int8", bytes(32), Ranks(), embedding=embedding)
        .continuation(force=False)
        .facts
        for embedding in (None, "f16")
    ]
    assert facts[0] != facts[1]


def test_inspect_and_dry_run_say_where_the_embedding_is(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, tmp_path: Path
) -> None:
    stored = molkv("inspect", bundle_of(UNTIED, embedding="storage")).stdout
    assert "f16, in the expert rows" in stored
    assert "in the dense graph" in molkv("inspect", bundle_of(UNTIED)).stdout
    arguments = ["export", checkpoint_of(UNTIED), "--out", tmp_path / "out", "--dry-run"]
    shown = molkv(*arguments, "--embedding", "storage").stdout
    assert "80.0 KiB (onnx)" in shown
    assert "input embedding" not in molkv(*arguments).stdout
