"""The plan is what the export then writes, and memory does not follow the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from molkv_export import ExportError, export
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.row_geometry import ExpertPrecision
from tests.peak_memory import run_measured
from tests.small_models import KINDS, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import BundleOf, CheckpointOf


@pytest.mark.parametrize("experts", get_args(ExpertPrecision))
@pytest.mark.parametrize("kind", [*KINDS, "molkv+tokenizer"])
def test_the_plan_lists_every_file_of_the_bundle(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str, experts: ExpertPrecision
) -> None:
    plan = make_plan(Checkpoint(checkpoint_of(kind)), experts)
    sizes = {file.name: file.stat().st_size for file in bundle_of(kind, experts).iterdir()}
    assert set(plan.files) == set(sizes)
    exact = {"tokenizer.json"} if "tokenizer" in kind else set()
    exact |= {"experts.molkv"} if kind != "dense" else set()
    assert set(plan.files) - set(plan.estimated) == exact
    for name in exact:
        assert plan.files[name] == sizes[name]
    for name in plan.estimated:
        assert sizes[name] / 3 < plan.files[name] < 3 * sizes[name], name
    # Of the weights' file only the padding of each weight is uncertain.
    weights = len(Checkpoint(checkpoint_of(kind)).names)
    difference = plan.files["dense.onnx.data"] - sizes["dense.onnx.data"]
    assert abs(difference) <= 4096 * weights
    assert plan.total_bytes == sum(plan.files.values())


def test_a_tokenizer_given_on_its_own_is_planned(
    checkpoint_of: CheckpointOf, tokenizer_file: Path
) -> None:
    plan = make_plan(Checkpoint(checkpoint_of("molkv")), "int8", tokenizer_file)
    assert plan.files["tokenizer.json"] == tokenizer_file.stat().st_size


@pytest.mark.parametrize("experts", get_args(ExpertPrecision))
def test_planned_reads_and_window_are_the_layouts(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, experts: ExpertPrecision
) -> None:
    plan = make_plan(Checkpoint(checkpoint_of("molkv")), experts)
    blob = Bundle.open(bundle_of("molkv", experts)).open_experts()
    assert blob is not None
    with blob:
        assert plan.bytes_per_token == blob.layout.row_stride
        assert plan.row_bytes == blob.layout.row_size
        assert plan.window_bytes == 8 * blob.layout.row_size
    # Two layers of three experts: a key of 2·8 and a value of 64.
    assert plan.expert_parameters == 320 * 2 * 3 * (16 + 64)
    assert plan.dense_parameters < 200_000


THREE_HEADS_OF_16 = {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("molkv", {"expert_query_heads": 4}, "hidden_size is 64, .* multiple of 128: .* 4 expert"),
        ("mole", THREE_HEADS_OF_16, "hidden_size is 48, .* multiple of 32: "),
    ],
)
def test_a_width_that_int4_groups_do_not_divide_is_refused_before_any_work(
    tmp_path: Path, kind: str, changes: dict[str, int], message: str
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", kind, **changes)
    with pytest.raises(ExportError, match=message + r".*export with int8 or f16"):
        make_plan(Checkpoint(folder), "int4")
    with pytest.raises(ExportError, match=message):
        export(folder, tmp_path / "bundle", experts="int4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
    assert make_plan(Checkpoint(folder), "int8").bytes_per_token > 0


PEAK_OF_WRITING_THE_BLOB = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from molkv_export.expert_pass import ExpertPass
from molkv_model.checkpoint import Checkpoint
from molkv_model.ranks import Ranks

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

checkpoint = Checkpoint(sys.argv[1])
before, peak = anonymous(), 0
def on_rows(count):
    global peak
    peak = max(peak, anonymous() - before)
folder = Path(sys.argv[2])
folder.mkdir()
(file,) = ExpertPass(checkpoint, "int8", bytes(32), Ranks()).write(folder, on_rows)
print(json.dumps([peak, file.stat().st_size]))
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
    out = folder / f"blob-{vocabulary_size}"
    peak, size = run_measured(PEAK_OF_WRITING_THE_BLOB, checkpoint, out)
    return peak, size


def test_memory_of_the_blob_pass_does_not_grow_with_the_vocabulary(tmp_path: Path) -> None:
    small, small_file = peak_of_blob_pass(tmp_path, 4096)
    large, large_file = peak_of_blob_pass(tmp_path, 32768)
    growth = large_file - small_file
    assert growth > 18 << 20
    assert large - small < growth / 4


# Not getrusage: there a child inherits the peak of the process that started it.
PEAK_OF_EXPORT = """
import json, sys
from pathlib import Path
from molkv_export import export
from molkv_export import ExportError, export
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint

dense, cache = sys.argv[3:]
plan = make_plan(
    Checkpoint(sys.argv[1]), "int8", precisions={"onnx": dense}, caches={"onnx": cache}
)
bundle = export(sys.argv[1], sys.argv[2], dense=dense, cache=cache)
assert bundle.manifest.parity.passed
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
print(json.dumps([peak, plan.peak_memory_bytes, 4 * plan.dense_parameters]))
"""


def peak_of_export(
    folder: Path, vocabulary_size: int, dense: str = "fp32", cache: str = "fp32"
) -> tuple[int, int, int]:
    """Peak resident bytes of a whole export, the planned ones, and bytes of the dense weights."""
    checkpoint = write_checkpoint(
        folder / str(vocabulary_size), "molkv", vocab_size=vocabulary_size, num_hidden_layers=1
    )
    out = folder / f"bundle-{vocabulary_size}"
    peak, planned, weights = run_measured(PEAK_OF_EXPORT, checkpoint, out, dense, cache)
    return peak, planned, weights


def test_an_export_needs_the_planned_memory_at_every_vocabulary(tmp_path: Path) -> None:
    small, small_plan, small_dense = peak_of_export(tmp_path, 4096)
    large, large_plan, large_dense = peak_of_export(tmp_path, 65536)
    for peak, planned in ((small, small_plan), (large, large_plan)):
        assert 0.7 * planned < peak < 1.1 * planned
    # The weights twice and the head grow, nothing else: logits of all positions would be 200 MiB.
    assert large - small < 3 * (large_dense - small_dense) + (32 << 20)


@pytest.mark.parametrize(("dense", "cache"), [("fp32", "int8"), ("int8", "int8")])
def test_quantized_graphs_need_the_planned_memory(tmp_path: Path, dense: str, cache: str) -> None:
    small, small_plan, _ = peak_of_export(tmp_path, 4096, dense, cache)
    large, large_plan, _ = peak_of_export(tmp_path, 65536, dense, cache)
    assert 0.7 * large_plan < large < 1.1 * large_plan
    # What interpreter and libraries take, which is alike in both, hides nothing here.
    assert large - small < 1.1 * (large_plan - small_plan)
