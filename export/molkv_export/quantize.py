"""Quantization of expert vectors. NumPy, so that every number can be reproduced without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.errors import MolkvError
from molkv_runtime.row_geometry import INT4_GROUP, ExpertPrecision

__all__ = ["Quantized", "half_embeddings", "key_precision", "pack_int4", "quantize"]

_INT8_LIMIT = 127
_INT4_LEAST, _INT4_MOST = -8, 7
# A group's scale is its element of largest magnitude divided by one of these, whichever leaves the
# least squared error. That element is never cut off (docs/model.md has what other choices cost).
_INT4_DIVISORS = (-8, -7.5, -7, -6.5, -6)


@dataclass(frozen=True)
class Quantized:
    """Quantized vectors.

    Attributes:
        values: int8 or float16 [..., size], or int4 as uint8 [..., size / 2].
        scales: float32 [...], one a vector; float16 [..., size / 32] for int4, one a group of 32
            elements; None for float16.
    """

    values: NDArray[Any]
    scales: NDArray[Any] | None


def key_precision(experts: ExpertPrecision) -> ExpertPrecision:
    """That of the keys in rows of a precision: keys are few and steer the choice."""
    return "int8" if experts == "int4" else experts


def quantize(vectors: NDArray[np.float32], precision: ExpertPrecision) -> Quantized:
    """Round to nearest, ties to even.

    Args:
        vectors: float32 [..., size].
        precision: ``f16``; ``int8``: symmetric, one scale a vector (largest magnitude / 127);
            ``int4``: one scale, of either sign, for each group of 32 elements, chosen to leave the
            least squared error.

    Raises:
        MolkvError: a value is not finite, or a float16 is too small for it or its scale.
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
    if precision == "int4":
        return _int4(vectors)
    scales = np.abs(vectors).max(axis=-1) / np.float32(_INT8_LIMIT)
    # A vector of zeros has scale zero and stays zero.
    divisor = np.where(scales == 0, np.float32(1), scales)[..., None]
    rounded = np.rint(vectors / divisor).clip(-_INT8_LIMIT, _INT8_LIMIT)
    return Quantized(rounded.astype(np.int8), scales.astype(np.float32))


def half_embeddings(embeddings: NDArray[np.float32]) -> NDArray[np.float16]:
    """Input embeddings as rows carry them: float32 [..., d], rounded to float16.

    Raises:
        MolkvError: a value is not finite, or too large for float16.
    """
    limit = float(np.finfo(np.float16).max)
    if not (np.abs(embeddings) <= limit).all():
        raise MolkvError(
            f"an embedding value is {np.abs(embeddings).max():.6g}, float16 ends at {limit:.6g}",
            fix="leave the embedding in the dense graph (--embedding graph)",
        )
    return embeddings.astype(np.float16)


def pack_int4(elements: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two elements a byte, the first in its low four bits: int8 [..., size] to [..., size / 2]."""
    bits = elements.view(np.uint8) & np.uint8(15)
    packed = bits[..., 0::2] | bits[..., 1::2] << np.uint8(4)
    return packed.astype(np.uint8, copy=False)


def _int4(vectors: NDArray[np.float32]) -> Quantized:
    groups = vectors.reshape(*vectors.shape[:-1], -1, INT4_GROUP)
    place = np.abs(groups).argmax(axis=-1)[..., None]
    extremes = np.take_along_axis(groups, place, axis=-1)
    limit = float(np.finfo(np.float16).max) * min(map(abs, _INT4_DIVISORS))
    if extremes.size and float(np.abs(extremes).max()) > limit:
        raise MolkvError(
            f"an expert value is {np.abs(extremes).max():.6g}, the scales of int4 end at {limit:g}",
            fix="export with int8 experts",
        )
    scales = np.zeros(extremes.shape, np.float32)
    elements = np.zeros(groups.shape, np.float32)
    least = np.full(extremes.shape, np.inf, np.float32)
    for divisor in _INT4_DIVISORS:
        tried = (extremes / np.float32(divisor)).astype(np.float16).astype(np.float32)
        rounded = _round_int4(groups, tried)
        error = rounded * tried
        error -= groups
        squared = np.einsum("...i,...i->...", error, error)[..., None]
        better = squared < least
        np.copyto(least, squared, where=better)
        np.copyto(scales, tried, where=better)
        np.copyto(elements, rounded, where=better)
    packed = pack_int4(elements.astype(np.int8)).reshape(*vectors.shape[:-1], -1)
    return Quantized(packed, scales[..., 0].astype(np.float16))


def _round_int4(groups: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    # A group whose scale float16 rounds to zero becomes zeros.
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    rounded: NDArray[np.float32] = groups * inverse
    np.rint(rounded, out=rounded)
    np.clip(rounded, _INT4_LEAST, _INT4_MOST, out=rounded)
    return rounded
