"""The plan is what the export then writes, and memory does not follow the vocabulary."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from tests.small_models import KINDS, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import BundleOf, CheckpointOf


@pytest.mark.parametrize("experts", ["int8", "f16"])
@pytest.mark.parametrize("kind", KINDS)
def test_planned_sizes_are_the_files_sizes(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str, experts: str
) -> None:
    plan = make_plan(Checkpoint(checkpoint_of(kind)), experts)  # type: ignore[arg-type]
    bundle = Bundle.open(bundle_of(kind, experts))
    sizes = {entry.name: entry.bytes for entry in bundle.manifest.files}
    if kind == "dense":
        assert set(plan.files) == {"dense.onnx.data"}
    else:
        assert plan.files["experts.molkv"] == sizes["experts.molkv"]
    # Alignment of every weight, and the rotary tables, come on top.
    planned, actual = plan.files["dense.onnx.data"], sizes["dense.onnx.data"]
    assert planned * 0.95 < actual < planned + 4096 * 40 + 8192
    assert plan.total_bytes == sum(plan.files.values())


@pytest.mark.parametrize("experts", ["int8", "f16"])
def test_planned_reads_and_window_are_the_layouts(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, experts: str
) -> None:
    plan = make_plan(Checkpoint(checkpoint_of("molkv")), experts)  # type: ignore[arg-type]
    blob = Bundle.open(bundle_of("molkv", experts)).open_experts()
    assert blob is not None
    with blob:
        assert plan.bytes_per_token == blob.layout.row_stride
        assert plan.row_bytes == blob.layout.row_size
        assert plan.window_bytes == 8 * blob.layout.row_size
    # Two layers of three experts: a key of 2·8 and a value of 64.
    assert plan.expert_parameters == 320 * 2 * 3 * (16 + 64)
    assert plan.dense_parameters < 200_000


PEAK = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from molkv_export.expert_blob import write_expert_blob
from molkv_model.checkpoint import Checkpoint

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

checkpoint = Checkpoint(sys.argv[1])
before, peak = anonymous(), 0
def on_rows(count):
    global peak
    peak = max(peak, anonymous() - before)
write_expert_blob(checkpoint, Path(sys.argv[2]), "int8", bytes(32), on_rows)
print(json.dumps([peak, Path(sys.argv[2]).stat().st_size]))
"""


def peak_of_blob_pass(folder: Path, vocabulary_size: int) -> tuple[int, int]:
    checkpoint = write_checkpoint(
        folder / str(vocabulary_size),
        "molkv",
        vocab_size=vocabulary_size,
        num_hidden_layers=1,
        num_experts=8,
        expert_intermediate_size=16,
    )
    result = subprocess.run(
        [sys.executable, "-c", PEAK, str(checkpoint), str(folder / f"{vocabulary_size}.molkv")],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, size = json.loads(result.stdout)
    return peak, size


def test_memory_of_the_blob_pass_does_not_grow_with_the_vocabulary(tmp_path: Path) -> None:
    small, small_file = peak_of_blob_pass(tmp_path, 4096)
    large, large_file = peak_of_blob_pass(tmp_path, 32768)
    growth = large_file - small_file
    assert growth > 18 << 20
    assert large - small < growth / 4
