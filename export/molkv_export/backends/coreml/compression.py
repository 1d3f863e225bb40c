"""Compression of the dense weights, by coremltools."""

from __future__ import annotations

from typing import Any

import coremltools.optimize.coreml as cto
import numpy as np

from molkv_export.backends.coreml.static_shapes import MULTIPLE
from molkv_export.errors import ExportError
from molkv_model.config import ModelConfig
from molkv_runtime.manifest import DensePrecision

__all__ = ["MATRIX", "check_precision", "compress"]

MATRIX = "_matrix"
"""How the names of constants end that are compressed."""
_GROUP = 16


def check_precision(config: ModelConfig, dense: DensePrecision) -> None:
    """Check before any work that a model's weights can be stored so.

    Raises:
        ExportError: blocks do not divide the model's width.
    """
    if dense == "int4" and config.hidden_size % MULTIPLE:
        raise ExportError(
            f"hidden_size is {config.hidden_size}, and dense int4 has blocks of {MULTIPLE} weights",
            fix="use int8, or palettized4, whose groups are rows",
        )


def compress(model: Any, dense: DensePrecision) -> Any:
    """Compress the matrices of a single-function model; everything else stays float16.

    Tables that are looked up by position or by age are no matrices, nor are norms.

    int8 has one scale for each output channel, int4 one for each 32 weights, palettized4 one table
    of 16 values, found by k-means, for each 16 output channels. All are symmetric or need no zero
    point, and none needs data.

    Args:
        model: a `coremltools.models.MLModel`.
        dense: the precision.

    Returns:
        the model, perhaps a new one.
    """
    if dense == "fp16":
        return model
    if dense == "palettized4":
        operation: Any = cto.OpPalettizerConfig(
            mode="kmeans",
            nbits=4,
            granularity="per_grouped_channel",
            group_size=_GROUP,
            weight_threshold=0,
        )
        apply = cto.palettize_weights
    else:
        blocks = {"granularity": "per_block", "block_size": MULTIPLE} if dense == "int4" else {}
        operation = cto.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype=dense, weight_threshold=0, **blocks
        )
        apply = cto.linear_quantize_weights
    matrices = dict.fromkeys(_matrix_names(model), operation)
    with np.errstate(invalid="ignore"):  # the scale of a row of zeros, which is padding, is zero
        return apply(model, cto.OptimizationConfig(op_name_configs=matrices))


def _matrix_names(model: Any) -> list[str]:
    (function,) = model.get_spec().mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    names = [op.outputs[0].name for op in block.operations if op.type == "const"]
    return [name for name in names if name.endswith(MATRIX)]
