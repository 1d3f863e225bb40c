"""Dense weights in blocks of int8 or int4, as ONNX Runtime's ``MatMulNBits`` takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from molkv_export.errors import ExportError
from molkv_model.config import ModelConfig
from molkv_runtime.manifest import DensePrecision

__all__ = ["BITS", "LARGEST_BLOCK", "SMALLEST_BLOCK", "BlockScheme", "BlockedMatrix"]

BITS: dict[DensePrecision, int] = {"int8": 8, "int4": 4}
LARGEST_BLOCK: dict[DensePrecision, int] = {"int8": 128, "int4": 64}
"""Weights that share a scale. Larger blocks are smaller and less exact: docs/graph.md."""
SMALLEST_BLOCK = 32


@dataclass(frozen=True)
class BlockedMatrix:
    """A matrix [N, K] in blocks along K, the last one padded; code 2^(bits - 1) is zero.

    Attributes:
        codes: uint8 [N, ceil(K / block), block · bits / 8]; of two int4, the low nibble is first.
        scales: float32 [N, ceil(K / block)].
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]


@dataclass(frozen=True)
class BlockScheme:
    """How every matrix of a graph is stored.

    Attributes:
        bits: of a weight.
        block: weights that share a scale.
    """

    bits: int
    block: int

    @classmethod
    def of(cls, config: ModelConfig, dense: DensePrecision) -> Self:
        """The scheme of a precision: rows of the embedding have whole blocks.

        Raises:
            ExportError: the model's rows have none.
        """
        block = LARGEST_BLOCK[dense]
        while config.hidden_size % block:
            block //= 2
        if block < SMALLEST_BLOCK:
            raise ExportError(
                f"hidden_size is {config.hidden_size}, and dense {dense} has blocks of at least "
                f"{SMALLEST_BLOCK}",
                fix="use --dense fp32, or train a model whose hidden_size is a multiple",
            )
        return cls(BITS[dense], block)

    def quantize(self, matrix: NDArray[np.float32]) -> BlockedMatrix:
        """Round to nearest, so that the largest weight of a block is exact.

        Args:
            matrix: float32 [N, K]; N outputs.
        """
        # Imported where it is needed: it brings 40 MB of libraries.
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            DefaultWeightOnlyQuantConfig,
            DefaultWeightOnlyQuantizer,
        )

        configuration = DefaultWeightOnlyQuantConfig(self.block, is_symmetric=True, bits=self.bits)
        quantizer = DefaultWeightOnlyQuantizer(configuration)
        codes, scales, _ = quantizer.qbits_block_quant(np.ascontiguousarray(matrix.T))
        return BlockedMatrix(codes, scales)

    def dequantize(self, matrix: BlockedMatrix, width: int) -> NDArray[np.float32]:
        """Float32 [N, width]: what the products compute with."""
        codes = matrix.codes
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=-1)
        blocks = codes.reshape(*matrix.scales.shape, self.block).astype(np.float32)
        blocks -= 1 << (self.bits - 1)
        blocks *= matrix.scales[..., None]
        return blocks.reshape(len(codes), -1)[:, :width]
