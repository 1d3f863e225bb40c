"""Which weights a quantized program stores, told without lowering it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from molkv_export.backends.executorch.stored_weights import stored_tensors
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from molkv_runtime.manifest import DensePrecision
    from tests.conftest import CheckpointOf

KINDS = ("molkv", "molkv-key-gelu-untied", "mole", "dense")
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


def trained(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every matrix that the graph multiplies by or looks up; a tied head under its own name."""
    matrices = {
        name: checkpoint.tensor(name)
        for name in checkpoint.names
        if checkpoint.tensor(name).ndim == 2
        and not is_expert_table_tensor(name)
        and not name.endswith("router.weight")
    }
    return matrices if HEAD in matrices else {**matrices, HEAD: matrices[TABLE]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dense", "steps"), [("int8", 127), ("int4", 7)])
def test_every_matrix_but_a_router_is_stored_rounded_to_its_own_scale(
    checkpoint_of: CheckpointOf, kind: str, dense: DensePrecision, steps: int
) -> None:
    checkpoint = Checkpoint(checkpoint_of(kind))
    expected, stored = trained(checkpoint), stored_tensors(checkpoint, dense)
    assert set(stored) == set(expected)
    for name, tensor in stored.items():
        assert tensor.shape == expected[name].shape, name
        half_step = expected[name].abs().amax(dim=1, keepdim=True) / steps / 2
        error = (tensor - expected[name]).abs()
        assert (error <= half_step * 1.01 + 1e-6).all(), name
        assert error.max() > 0, name


def test_int4_stores_coarser_products_and_the_same_table(checkpoint_of: CheckpointOf) -> None:
    checkpoint = Checkpoint(checkpoint_of("molkv"))
    int8, int4 = (stored_tensors(checkpoint, dense) for dense in ("int8", "int4"))
    assert torch.equal(int8[TABLE], int4[TABLE])
    assert not torch.equal(int8[HEAD], int4[HEAD])
