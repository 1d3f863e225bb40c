"""Quantization of expert vectors. NumPy, so that every number can be reproduced without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.errors import MolkvError
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["Quantized", "quantize"]

_INT8_LIMIT = 127


@dataclass(frozen=True)
class Quantized:
    """Quantized vectors.

    Attributes:
        values: int8 or float16 [..., size].
        scales: float32 [...], one a vector; None for float16.
    """

    values: NDArray[Any]
    scales: NDArray[np.float32] | None


def quantize(vectors: NDArray[np.float32], precision: ExpertPrecision) -> Quantized:
    """Round to nearest, ties to even.

    Args:
        vectors: float32 [..., size].
        precision: ``f16``, or ``int8``: symmetric, one scale a vector (largest magnitude / 127).

    Raises:
        MolkvError: a value is not finite, or too large for float16.
    """
    if not np.isfinite(vectors).all():
        raise MolkvError(
            "an expert value is NaN or infinite", fix="training diverged; use another checkpoint"
        )
    if precision == "f16":
        limit = float(np.finfo(np.float16).max)
        if vectors.size and float(np.abs(vectors).max()) > limit:
            raise MolkvError(
                f"an expert value is {np.abs(vectors).max():.6g}, float16 ends at {limit:.6g}",
                fix="export with int8 experts",
            )
        return Quantized(vectors.astype(np.float16), None)
    scales = np.abs(vectors).max(axis=-1) / np.float32(_INT8_LIMIT)
    # A vector of zeros has scale zero and stays zero.
    divisor = np.where(scales == 0, np.float32(1), scales)[..., None]
    rounded = np.rint(vectors / divisor).clip(-_INT8_LIMIT, _INT8_LIMIT)
    return Quantized(rounded.astype(np.int8), scales.astype(np.float32))
