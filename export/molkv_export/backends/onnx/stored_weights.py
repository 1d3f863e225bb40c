"""What a graph stores: its weights as tensors of the checkpoint, the scales of its cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from molkv_export.backends.onnx.quantization import BlockScheme
from molkv_export.cache_scales import CacheScales
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.manifest import DensePrecision

__all__ = ["cache_scales", "stored_tensors"]


def stored_tensors(checkpoint: Checkpoint, dense: DensePrecision) -> dict[str, Tensor]:
    """Every quantized matrix by its checkpoint name, in float32.

    Quantization needs no data and no chance, so these are the graph's.

    Args:
        checkpoint: the trained model.
        dense: precision of the dense weights.
    """
    scheme = BlockScheme.of(checkpoint.config, dense)

    def stored(name: str) -> Tensor:
        matrix = checkpoint.tensor(name).numpy()
        return torch.from_numpy(scheme.dequantize(scheme.quantize(matrix), matrix.shape[1]))

    others = ("norm.weight", "age_bias", "router.weight")
    return {
        name: stored(name)
        for name in checkpoint.names
        if not is_expert_table_tensor(name) and not name.endswith(others)
    }


def cache_scales(file: Path) -> CacheScales:
    """The scales of a graph's int8 self-attention cache.

    Args:
        file: ``dense.onnx``.
    """
    model = onnx.load(str(file), load_external_data=False)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    # Its last two inputs: a scale of the keys, one of the values.
    keys, values = (
        np.concatenate([numpy_helper.to_array(weights[node.input[place]]) for node in layers])
        for place in (-2, -1)
    )
    return CacheScales(keys, values)
