"""The weights that a graph stores, as tensors of the checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

from molkv_export.backends.onnx.quantization import BlockScheme
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.manifest import DensePrecision

__all__ = ["stored_tensors"]


def stored_tensors(checkpoint: Checkpoint, dense: DensePrecision) -> dict[str, Tensor]:
    """Every quantized matrix by its checkpoint name, in float32.

    Quantization needs no data and no chance, so these are the graph's.

    Args:
        checkpoint: the trained model.
        dense: precision of the dense weights.
    """
    matrices = {
        name: checkpoint.tensor(name)
        for name in checkpoint.names
        if not is_expert_table_tensor(name) and not name.endswith(("norm.weight", "age_bias"))
    }
    scheme = BlockScheme.of(checkpoint.config, dense)
    return {
        name: torch.from_numpy(scheme.dequantize(scheme.quantize(matrix.numpy()), matrix.shape[1]))
        for name, matrix in matrices.items()
        if not name.endswith("router.weight")
    }
