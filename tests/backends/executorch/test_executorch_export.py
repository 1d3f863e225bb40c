"""Options of an ExecuTorch export: refused before any work, or of measured quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from molkv_export.bundle import ExportConfig, export
from molkv_export.errors import ExportError
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from tests.backends.executorch.conftest import PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends.executorch.conftest import ProgramBundleOf

QUANTIZED = {"int8-weights": "int8", "int4-weights": "int4"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": ["onnx"], "dense": "fp16"}, "'fp16', which backend onnx does not have"),
        (
            {"backends": ["onnx", "executorch"], "dense": "palettized4"},
            "'palettized4', which backend onnx does not have",
        ),
        ({"backends": ["executorch"], "dense": "int2"}, "dense is 'int2'"),
        ({"backends": ["executorch", "executorch"]}, "name each once"),
    ],
)
def test_unsupported_options_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "there-is-no-checkpoint", tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_a_backend_that_is_not_installed_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(ExportError, match=r"needs the package executorch.*molkv\[executorch\]"):
        ExportConfig(tmp_path, tmp_path / "out", ("executorch",))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_plan_is_near_the_programs_size(
    program_bundle_of: ProgramBundleOf, program_checkpoint_of: ProgramBundleOf, name: str
) -> None:
    bundle = Bundle.open(program_bundle_of(name))
    backends = bundle.manifest.backends
    plan = make_plan(
        Checkpoint(program_checkpoint_of(name)),
        bundle.manifest.quantization.experts or "int8",
        precisions={backend: entry.dense for backend, entry in backends.items()},
    )
    written = bundle.manifest.file("dense.pte").bytes
    assert "dense.pte" in plan.estimated
    assert written <= plan.files["dense.pte"] < written + (200 << 10)


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_weights_pass_the_ladder_at_their_own_limits(
    program_bundle_of: ProgramBundleOf, name: str
) -> None:
    manifest = Bundle.open(program_bundle_of(name)).manifest
    assert manifest.backends["executorch"].dense == QUANTIZED[name]
    assert manifest.parity is not None
    failed = [rung for rung in manifest.parity.rungs if not rung.passed]
    assert not failed
    # The comparison with the trained weights sees the quantization.
    (trained,) = [
        rung.figure
        for rung in manifest.parity.rungs
        if "KL divergence" in rung.name and "stored weights" not in rung.name
    ]
    assert trained > 1e-6


def test_quantized_weights_are_smaller(program_bundle_of: ProgramBundleOf) -> None:
    sizes = {
        name: Bundle.open(program_bundle_of(name)).manifest.file("dense.pte").bytes
        for name in ("dense", "int8-weights", "int4-weights")
    }
    # The two have experts, and so more weights than the float32 program of a dense model.
    assert sizes["int4-weights"] < sizes["int8-weights"] < sizes["dense"] / 2
