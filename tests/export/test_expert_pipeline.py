"""Rows depend on checkpoint and precision alone, stages overlap, and memory has a stated bound."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molkv_export import ExportError
from molkv_export.blob_files import BlobFiles
from molkv_export.expert_blob import (
    SLICE_BYTES,
    SLICE_ROWS,
    VECTOR_BYTES,
    blob_headers,
    expert_slices,
    row_geometry,
    slice_rows,
    working_bytes,
)
from molkv_export.expert_pass import ExpertPass
from molkv_export.expert_pipeline import ExpertPipeline
from molkv_export.reparameterize import ExpertTable
from molkv_model.checkpoint import Checkpoint, load, save
from molkv_model.config import ModelConfig
from molkv_model.ranks import Ranks
from molkv_runtime.row_layout import RowLayout
from tests.peak_memory import run_measured
from tests.small_models import edit_weights, random_model, small_config, write_checkpoint


def all_rows(checkpoint: Checkpoint, threads: int | None = None) -> np.ndarray[Any, Any]:
    layout = RowLayout.of(row_geometry(checkpoint.config, "int8"))
    pipeline = ExpertPipeline(ExpertTable(checkpoint), layout, "int8", threads)
    return np.concatenate(list(pipeline.rows(expert_slices(checkpoint.config, layout))))


DIGEST_OF_ROWS = """
import hashlib, sys
import torch
from molkv_model.checkpoint import Checkpoint
from tests.export.test_expert_pipeline import all_rows
checkpoint = Checkpoint(sys.argv[1])
before = torch.get_num_threads()
digests = {hashlib.sha256(all_rows(checkpoint, threads)).hexdigest() for threads in (None, 1, 3)}
assert torch.get_num_threads() == before
print(before, *digests)
"""


def test_rows_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    # With two threads torch adds up some products of this shape in another order.
    sizes = {"expert_intermediate_size": 4096, "vocab_size": 7, "num_experts": 16}
    checkpoint = write_checkpoint(tmp_path, "molkv", **sizes)
    found = {}
    for threads in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", DIGEST_OF_ROWS, str(checkpoint)],
            env=os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        torch_threads, found[threads] = result.stdout.split()
        assert torch_threads == threads
    assert found["1"] == found["2"]


def test_a_checkpoint_in_bfloat16_has_the_rows_of_its_values_in_float32(tmp_path: Path) -> None:
    model = random_model(small_config("molkv")).to(torch.bfloat16).to(torch.float32)
    save(model, tmp_path / "half", dtype=torch.bfloat16)
    save(model, tmp_path / "single")
    rows = [all_rows(Checkpoint(tmp_path / name)) for name in ("half", "single")]
    np.testing.assert_array_equal(*rows)


def test_experts_one_by_one_are_those_of_the_model(tmp_path: Path) -> None:
    for kind in ("molkv", "mole", "mole-published"):
        folder = write_checkpoint(tmp_path / kind, kind)
        table, model = ExpertTable(Checkpoint(folder)), load(folder)
        embeddings = table.embeddings(3, 20)
        for number, layer in enumerate(model.model.layers):
            with torch.no_grad():
                keys, values = layer.experts.table(embeddings)
            for expert in range(model.config.num_experts):
                ours = table.expert(number, expert, embeddings)
                torch.testing.assert_close(torch.from_numpy(ours.values), values[:, expert])
                assert (ours.keys is None) == (keys is None)
                if keys is not None:
                    theirs = keys[:, expert].flatten(1)
                    torch.testing.assert_close(torch.from_numpy(ours.keys), theirs)


def test_an_expert_that_diverged_names_checkpoint_and_token_ids(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, "molkv")
    edit_weights(folder, "model.layers.1.experts.up_proj", float("inf"))
    with pytest.raises(ExportError, match=rf"^{folder}: token ids 0 to 319: .* NaN or infinite"):
        all_rows(Checkpoint(folder))


def test_the_next_slice_is_computed_while_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("molkv_export.expert_blob.SLICE_ROWS", 64)
    later_slice_begun = threading.Event()
    embeddings, write = ExpertTable.embeddings, BlobFiles.write

    def recording(self: ExpertTable, start: int, stop: int) -> torch.Tensor:
        # Two slices are ahead of the one that is written, so this is none of those.
        if start >= 128:
            later_slice_begun.set()
        return embeddings(self, start, stop)

    def waiting(self: BlobFiles, first_row: int, rows: Any) -> None:
        assert later_slice_begun.wait(60)
        write(self, first_row, rows)

    monkeypatch.setattr(ExpertTable, "embeddings", recording)
    monkeypatch.setattr(BlobFiles, "write", waiting)
    checkpoint = Checkpoint(write_checkpoint(tmp_path / "checkpoint", "molkv"))
    ExpertPass(checkpoint, "int8", bytes(32), Ranks()).write(tmp_path, lambda _: None)


def test_quantizing_overlaps_with_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third_expert_begun = threading.Event()
    expert, quantize = ExpertTable.expert, ExpertPipeline._quantize
    begun = 0

    def counting(self: ExpertTable, *arguments: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 2:
            third_expert_begun.set()
        return expert(self, *arguments)

    def waiting(self: ExpertPipeline, *arguments: Any) -> Any:
        assert third_expert_begun.wait(60)
        return quantize(self, *arguments)

    monkeypatch.setattr(ExpertTable, "expert", counting)
    monkeypatch.setattr(ExpertPipeline, "_quantize", waiting)
    all_rows(Checkpoint(write_checkpoint(tmp_path, "molkv")), 1)


configurations = st.builds(
    lambda **sizes: ModelConfig(
        vocab_size=sizes.pop("vocabulary"),
        hidden_size=64 * sizes.pop("width"),
        num_attention_heads=4,
        num_key_value_heads=4,
        expert_query_heads=4,
        **sizes,
    ),
    vocabulary=st.integers(1, 300_000),
    width=st.integers(1, 128),
    num_hidden_layers=st.integers(1, 64),
    num_experts=st.integers(1, 32),
    expert_intermediate_size=st.integers(1, 32768),
    expert_key_size=st.integers(1, 128),
)


@given(configurations, st.sampled_from(["int8", "f16"]), st.integers(1, 64))
def test_memory_beside_the_checkpoint_is_bounded_whatever_the_model(
    config: ModelConfig, experts: str, threads: int
) -> None:
    layout = blob_headers(config, experts, bytes(32))[0].layout()  # type: ignore[arg-type]
    rows = slice_rows(config, layout)
    assert rows.bit_count() == 1
    assert rows <= SLICE_ROWS
    if rows > 1:
        bound = 4 * SLICE_BYTES + (threads + 1) * VECTOR_BYTES
        assert working_bytes(config, layout, threads) <= bound
    slices = expert_slices(config, layout)
    assert {len(ids) for ids in slices[:-1]} <= {rows}
    assert [ids.start for ids in slices] == list(range(0, config.vocab_size, rows))
    assert slices[-1].stop == config.vocab_size


PEAK = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from molkv_export.expert_blob import working_bytes
from molkv_export.expert_pass import ExpertPass
from molkv_export.pass_costs import measured
from molkv_model.checkpoint import Checkpoint
from molkv_model.ranks import Ranks
import molkv_export.pass_costs as costs

class Anonymous:
    # Pages of mapped files can be taken back at any time, so they do not count.
    def memory_info(self):
        lines = Path("/proc/self/status").read_text().splitlines()
        self.rss = next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))
        return self

costs.psutil.Process = Anonymous
checkpoint = Checkpoint(sys.argv[1])
rows = ExpertPass(checkpoint, "int8", bytes(32), Ranks())
before = Anonymous().memory_info().rss
with measured() as cost:
    rows.write(Path(sys.argv[2]), lambda _: None)
planned = working_bytes(checkpoint.config, rows._headers[0].layout(), 1)
print(json.dumps([cost.peak_memory_bytes - before, planned]))
"""


@pytest.mark.parametrize(("layers", "experts"), [(1, 2), (1, 16), (8, 2), (8, 16)])
def test_writing_rows_takes_the_memory_that_was_stated(
    tmp_path: Path, layers: int, experts: int
) -> None:
    checkpoint = write_checkpoint(
        tmp_path / "checkpoint",
        "molkv",
        vocab_size=8192,
        num_hidden_layers=layers,
        num_experts=experts,
        expert_intermediate_size=1024,
    )
    (tmp_path / "rows").mkdir()
    peak, planned = run_measured(PEAK, checkpoint, tmp_path / "rows")
    # Threads, and what torch loads when it is first used.
    assert peak < planned + (24 << 20)
    weights = (checkpoint / "model.safetensors").stat().st_size
    if (layers, experts) == (8, 16):
        assert peak < weights / 2 + planned
