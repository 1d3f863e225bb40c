"""``export`` and ``verify`` with a Core ML graph in the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from coremltools.models.utils import load_spec, save_spec

from molkv_export import ExportError, export
from molkv_export.backends.coreml.graph import runs_core_ml
from molkv_export.backends.coreml.parity import climb
from molkv_export.bundle import ExportConfig
from molkv_export.verify import verify
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import EVALUATED
from molkv_runtime.session import Session
from tests.cli.command import molkv

if TYPE_CHECKING:
    from tests.conftest import CheckpointOf

HOW = "Core ML" if runs_core_ml() else EVALUATED


@pytest.fixture(scope="module")
def bundle(checkpoint_of: CheckpointOf, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("coreml") / "bundle"
    return export(checkpoint_of("molkv"), out, ["onnx", "coreml"])


def copy_of(bundle: Bundle, folder: Path) -> Path:
    return Path(shutil.copytree(bundle.path, folder / "bundle"))


def test_one_export_writes_both_graphs_and_climbs_both_ladders(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert set(manifest.backends) == {"onnx", "coreml"}
    coreml = manifest.backends["coreml"]
    assert (coreml.dense, coreml.compute_units) == ("fp16", "cpuAndGPU")
    assert coreml.limits is not None
    assert (coreml.limits.chunk, coreml.limits.context, coreml.limits.cache_tokens) == (64, 96, 96)
    assert manifest.parity is not None
    assert manifest.parity.passed
    rungs = [rung.name for rung in manifest.parity.rungs]
    assert "5 logits: KL divergence (onnx)" in rungs
    assert f"5 logits: KL divergence, {HOW} (coreml)" in rungs
    assert f"6 greedy tokens: below the best logit, {HOW} (coreml)" in rungs
    assert len(manifest.experts) == 1


def test_the_manifest_lists_every_file_of_the_package(bundle: Bundle) -> None:
    listed = {entry.name for entry in bundle.manifest.files} | {"manifest.json"}
    there = {
        path.relative_to(bundle.path).as_posix()
        for path in bundle.path.rglob("*")
        if path.is_file()
    }
    assert listed == there
    assert any(name.startswith("dense.mlpackage/") for name in listed)


def test_the_onnx_graph_of_such_a_bundle_runs(bundle: Bundle) -> None:
    with Session(bundle, threads=1) as session:
        assert np.isfinite(session.prefill([1, 2, 3])).all()


def test_verify_says_that_it_evaluated_and_did_not_run(bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    wide = {"COLUMNS": "200"}
    result = molkv("verify", bundle.path, "--backend", "coreml", environment=wide)
    assert f"4 prefill in chunks, {HOW}" in result.stdout
    assert "stock ONNX Runtime" not in result.stdout
    assert ("There is no Core ML on this system" in result.stdout) is not runs_core_ml()
    assert (bundle.path / "manifest.json").read_bytes() == before
    result = molkv("verify", bundle.path, "--backend", "executorch", code=2)
    assert "has no executorch graph, only coreml, onnx" in result.stderr


def test_a_dropped_cache_write_fails_the_ladder(
    bundle: Bundle, checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    folder = copy_of(bundle, tmp_path)
    (file,) = folder.rglob("*.mlmodel")
    specification = load_spec(str(file))
    (block,) = specification.mlProgram.functions["decode"].block_specializations.values()
    writes = [op for op in block.operations if op.type == "write_state"]
    block.operations.remove(writes[0])
    save_spec(specification, str(file))
    # As an exporter would have recorded it: the sizes are right, the program is not.
    fields = json.loads((folder / "manifest.json").read_text())
    for entry in fields["files"]:
        entry["bytes"] = (folder / entry["name"]).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(fields))
    damaged = Bundle.open(folder, verify_checksums=False)
    rungs = {rung.name: rung.passed for rung in climb(damaged, Checkpoint(checkpoint_of("molkv")))}
    assert not rungs[f"4 prefill in chunks, {HOW}"]
    assert not rungs[f"5 logits: max-abs to torch on the stored weights, {HOW}"]
    assert rungs["3 op: MIL composite = NumPy"]


def test_a_changed_package_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = copy_of(bundle, tmp_path)
    (file,) = folder.rglob("weight.bin")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"weight\.bin: sha256 is"):
        Bundle.open(folder)
    file.unlink()
    with pytest.raises(BundleError, match=r"weight\.bin: file is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "name",
    [
        "dense.mlpackage/../manifest.json",
        "dense.mlpackage//etc/passwd",
        "dense.mlpackage/",
        "elsewhere/file",
        "../dense.mlpackage/file",
        "/dense.mlpackage/file",
    ],
)
def test_names_that_leave_the_package_are_refused(
    bundle: Bundle, tmp_path: Path, name: str
) -> None:
    folder = copy_of(bundle, tmp_path)
    fields = json.loads((folder / "manifest.json").read_text())
    fields["files"].append({"name": name, "bytes": 1, "sha256": "0" * 64})
    (folder / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match="is not a bare name"):
        Bundle.open(folder)


def test_a_package_that_the_manifest_does_not_list_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    folder = copy_of(bundle, tmp_path)
    fields = json.loads((folder / "manifest.json").read_text())
    fields["files"] = [file for file in fields["files"] if "mlpackage" not in file["name"]]
    (folder / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=r"files does not list dense\.mlpackage"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("backends", "dense", "message"),
    [
        (("onnx",), "fp16", "'fp16', which backend onnx does not have.*onnx has fp32, int8, int4"),
        (("coreml",), "fp32", "coreml does not have.*fp16, int8, int4, palettized4"),
        (("onnx", "coreml"), "fp16", "backend onnx does not have"),
        (("coreml",), "int2", "dense is 'int2'"),
        (("onnx",), {"coreml": "int8"}, "dense is given for coreml, which is not exported"),
    ],
)
def test_precisions_that_a_backend_lacks_are_refused_before_any_work(
    tmp_path: Path, backends: tuple[str, ...], dense: str | dict[str, str], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        ExportConfig(tmp_path / "no-checkpoint", tmp_path / "out", backends, dense=dense)


def test_a_compressed_bundle_verifies_against_its_checkpoint(
    checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of("mole")
    made = export(checkpoint, tmp_path / "bundle", ["coreml"], dense="int8")
    assert set(made.manifest.backends) == {"coreml"}
    verdict = verify(made, checkpoint=Checkpoint(checkpoint))
    assert verdict.passed
    again = export(checkpoint, tmp_path / "bundle", ["coreml"], dense="int8", force=True)
    assert Bundle.open(again.path).manifest.parity == again.manifest.parity
    names = [rung.name for rung in verdict.rungs]
    assert f"5 logits: max-abs to torch on the stored weights, {HOW}" in names
