"""The numbers that stored vectors stand for (docs/format.md, "Data types")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.row_geometry import INT4_GROUP

__all__ = ["dequantize", "unpack_int4"]


def unpack_int4(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The elements of packed int4 vectors.

    Args:
        packed: uint8 [..., size / 2]; each byte holds two, the first in its low four bits.

    Returns:
        int8 [..., size], -8 to 7.
    """
    pairs = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.int8)
    # Two's complement of four bits.
    elements: NDArray[np.int8] = (pairs ^ 8) - 8
    return elements.reshape(*packed.shape[:-1], -1)


def dequantize(vectors: NDArray[Any], scales: NDArray[Any] | None) -> NDArray[np.float32]:
    """The vectors of a section or plane of `LayerRows` as numbers.

    Args:
        vectors: int8 or float16 [..., size], or int4 as uint8 [..., size / 2].
        scales: float32 [...], float16 [..., size / 32] for int4, or None.

    Returns:
        float32 [..., size].
    """
    if vectors.dtype != np.uint8:
        exact = vectors.astype(np.float32)
        return exact if scales is None else exact * scales[..., None]
    if scales is None:
        raise ValueError("int4 vectors need the scales of their groups")
    groups = unpack_int4(vectors).reshape(*vectors.shape[:-1], -1, INT4_GROUP)
    exact = groups * scales.astype(np.float32)[..., None]
    return exact.reshape(*vectors.shape[:-1], -1)
