"""``--dense``: what is stored smaller, and that the program computes with what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from coremltools.models.utils import load_spec

from molkv_export.backends.catalogue import BACKENDS
from molkv_export.backends.coreml.compression import MATRIX, check_precision
from molkv_export.backends.coreml.mil_evaluator import MilProgram
from molkv_export.backends.coreml.package import DECODE
from molkv_export.backends.coreml.stored_weights import stored_tensors
from molkv_export.divergence import Comparison, compare_logits
from molkv_export.errors import ExportError
from molkv_export.reference import ReferenceSession
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from tests.small_models import small_config

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.backends.coreml.conftest import OpenSession, PackageOf
    from tests.conftest import BundleOf, CheckpointOf

KIND = "molkv"
COMPRESSED = BACKENDS["coreml"].precisions[1:]
IDS = np.random.default_rng(0).integers(0, 320, 96)


def weight_bytes(package: Path) -> int:
    (file,) = package.rglob("weight.bin")
    return file.stat().st_size


def operations(package: Path) -> Iterator[tuple[str, str]]:
    """Type of every op of the decode function, and name of its result."""
    (file,) = package.rglob("*.mlmodel")
    function = load_spec(str(file)).mlProgram.functions[DECODE]
    (block,) = function.block_specializations.values()
    return ((op.type, op.outputs[0].name) for op in block.operations if op.outputs)


@pytest.fixture(scope="module")
def trained_logits(checkpoint_of: CheckpointOf, bundle_of: BundleOf) -> NDArray[np.float32]:
    blob = Bundle.open(bundle_of(KIND, "int8"), verify_checksums=False).open_experts()
    return ReferenceSession(Checkpoint(checkpoint_of(KIND)), blob).run(IDS.tolist())


@pytest.mark.parametrize(
    ("dense", "kind", "share"),
    [
        ("int8", "constexpr_blockwise_shift_scale", 0.6),
        ("int4", "constexpr_blockwise_shift_scale", 0.4),
        ("palettized4", "constexpr_lut_to_dense", 0.4),
    ],
)
def test_every_matrix_is_compressed_and_nothing_else(
    package_of: PackageOf, dense: str, kind: str, share: float
) -> None:
    package = package_of(KIND, dense)
    compressed = [name for op, name in operations(package) if op == kind]
    plain = [name for op, name in operations(package_of(KIND, "fp16")) if op == "const"]
    matrices = [name for name in plain if name.endswith(MATRIX)]
    assert len(matrices) == 13  # the embedding; in each layer six
    assert sorted(name.rpartition("_")[0] for name in compressed) == sorted(matrices)
    others = [op for op, _ in operations(package) if op.startswith("constexpr") and op != kind]
    assert not others
    assert weight_bytes(package) < share * weight_bytes(package_of(KIND, "fp16"))


@pytest.mark.parametrize("dense", COMPRESSED)
def test_logits_are_torchs_with_the_weights_that_are_stored(
    checkpoint_of: CheckpointOf,
    bundle_of: BundleOf,
    package_of: PackageOf,
    open_session: OpenSession,
    dense: str,
) -> None:
    """So compression costs what it costs, and the lowering costs nothing beside it."""
    checkpoint = Checkpoint(checkpoint_of(KIND))
    program = MilProgram(package_of(KIND, dense))
    tensors = stored_tensors(checkpoint.config, program.function(DECODE))
    blob = Bundle.open(bundle_of(KIND, "int8"), verify_checksums=False).open_experts()
    expected = ReferenceSession(checkpoint, blob, tensors).run(IDS.tolist())
    assert np.abs(open_session(KIND, dense).logits(IDS) - expected).max() < 4e-2


def test_stored_tensors_are_the_checkpoints_where_nothing_is_compressed(
    checkpoint_of: CheckpointOf, package_of: PackageOf
) -> None:
    """A control of the comparison above: padding and folded factors are undone exactly."""
    for kind in (KIND, "molkv-key-gelu-untied", "mole"):
        checkpoint = Checkpoint(checkpoint_of(kind))
        program = MilProgram(package_of(kind, "fp16"))
        tensors = stored_tensors(checkpoint.config, program.function(DECODE))
        matrices = {
            name
            for name in checkpoint.names
            if checkpoint.tensor(name).ndim == 2 and ".experts." not in name
        }
        assert matrices <= set(tensors)
        for name, tensor in tensors.items():
            expected = checkpoint.tensor(name).numpy()
            assert tensor.shape == expected.shape, name
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1.5e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("dense", "least", "most"),
    [
        ("fp16", 1e-9, 1e-5),
        ("int8", 1e-5, 1e-3),
        ("int4", 1e-3, 0.15),
        ("palettized4", 1e-3, 0.15),
    ],
)
def test_what_compression_costs_is_as_measured(
    open_session: OpenSession,
    trained_logits: NDArray[np.float32],
    dense: str,
    least: float,
    most: float,
) -> None:
    """Mean KL divergence from the trained weights, in nats; measured 2e-6, 2e-4, 6e-2, 5e-2."""
    parts = [compare_logits(open_session(KIND, dense).logits(IDS), trained_logits)]
    assert least < Comparison.of(parts).kl_divergence.mean < most


def test_widths_without_whole_blocks_are_refused() -> None:
    narrow = small_config("dense", hidden_size=48)
    with pytest.raises(ExportError, match="hidden_size is 48, and dense int4 has blocks of 32"):
        check_precision(narrow, "int4")
    for dense in ("fp16", "int8", "palettized4"):
        check_precision(narrow, dense)
