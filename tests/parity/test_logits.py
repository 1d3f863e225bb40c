"""Rung 5: the exported graph computes the trained model, for every architecture and option."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from molkv_export.reference import ReferenceSession
from molkv_model.checkpoint import Checkpoint, load, save
from molkv_runtime.bundle import Bundle
from molkv_runtime.session import Session
from tests.small_models import KINDS, random_model, small_config

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import BundleOf, CheckpointOf

IDS = np.random.default_rng(11).integers(0, 320, 60)


def onnx_logits(folder: Path) -> NDArray[np.float32]:
    with Session(Bundle.open(folder), threads=1, chunk=17) as session:
        return session.logits(IDS)


def model_logits(checkpoint: Path) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = load(checkpoint)(torch.from_numpy(IDS)[None])[0].numpy()
    return logits


def reference_logits(checkpoint: Path, folder: Path) -> NDArray[np.float32]:
    blob = Bundle.open(folder).open_experts()
    return ReferenceSession(Checkpoint(checkpoint), blob).run(IDS.tolist())


def divergence(ours: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Mean KL divergence in nats, by torch."""
    log_ours, log_expected = (
        torch.from_numpy(logits).double().log_softmax(-1) for logits in (ours, expected)
    )
    return float((log_expected.exp() * (log_expected - log_ours)).sum(-1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_logits_with_float16_experts_are_the_trained_models(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    checkpoint = checkpoint_of(kind)
    ours, trained = onnx_logits(bundle_of(kind, "f16")), model_logits(checkpoint)
    assert trained.std() > 0.1
    assert np.abs(ours - trained).max() < 5e-3


@pytest.mark.parametrize("experts", ["int8", "int4", "f16"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_torch_references_on_the_same_rows(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str, experts: str
) -> None:
    folder = bundle_of(kind, experts)
    ours, expected = onnx_logits(folder), reference_logits(checkpoint_of(kind), folder)
    assert np.abs(ours - expected).max() < 1e-4
    assert divergence(ours, expected) < 1e-8


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dense"])
def test_int8_experts_cost_little_and_not_nothing(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    ours, trained = onnx_logits(bundle_of(kind, "int8")), model_logits(checkpoint_of(kind))
    assert 1e-9 < divergence(ours, trained) < 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dense"])
def test_int4_experts_cost_more_than_int8_and_little(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    trained = model_logits(checkpoint_of(kind))
    int8, int4 = (
        divergence(onnx_logits(bundle_of(kind, experts)), trained) for experts in ("int8", "int4")
    )
    assert 10 * int8 < int4 < 0.02


@pytest.mark.parametrize("name", ["molkv+tokenizer", "mole-published+tokenizer"])
def test_a_tokenizer_changes_no_logits(bundle_of: BundleOf, name: str) -> None:
    with_tokenizer = onnx_logits(bundle_of(name, "int8"))
    without = onnx_logits(bundle_of(name.partition("+")[0], "int8"))
    np.testing.assert_array_equal(with_tokenizer, without)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perturbed_model_is_noticed(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    """A control: one tensor of one layer 5 % off must exceed the tolerances above."""
    model = load(checkpoint_of(kind))
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.mul_(1.05)
        perturbed = model(torch.from_numpy(IDS)[None])[0].numpy()
    assert np.abs(onnx_logits(bundle_of(kind, "f16")) - perturbed).max() > 5e-3


def test_bfloat16_checkpoints_export_as_the_float32_model_they_round_to(tmp_path: Path) -> None:
    from molkv_export import export

    model = random_model(small_config("molkv", max_position_embeddings=20, num_hidden_layers=1))
    save(model, tmp_path / "checkpoint", dtype=torch.bfloat16)
    bundle = export(tmp_path / "checkpoint", tmp_path / "bundle", experts="f16")
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.passed
    ids = IDS[:20]
    with Session(bundle, threads=1) as session, torch.no_grad():
        expected = load(tmp_path / "checkpoint")(torch.from_numpy(ids)[None])[0].numpy()
        assert np.abs(session.logits(ids) - expected).max() < 5e-3
