"""The op in NumPy: the readable definition that every kernel is compared with (docs/graph.md)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.dequantize import dequantize
from molkv_runtime.row_layout import LayerRows

__all__ = ["expert_attention"]


def expert_attention(
    query: NDArray[np.float32],
    rows: LayerRows,
    age_bias: NDArray[np.float32],
    start: int = 0,
) -> NDArray[np.float32]:
    """Attention of T tokens over the key-value experts of a window of S rows.

    Args:
        query: float32 [T, G, dk]; token t sits in row S - T + t.
        rows: the window; keys [S, N, G·dk], values [S, N, d], scales [S, N] where quantized to
            int8; int4 values as `LayerRows` has them.
        age_bias: float32 [G, N, W].
        start: rows before it are padding.

    Returns:
        float32 [T, d].
    """
    if rows.keys is None:
        raise ValueError("expert attention needs keys; MoLE's are one-hot (docs/graph.md)")
    tokens, heads, key_size = query.shape
    count = len(rows.values)
    _, experts, window = age_bias.shape
    keys = rows.keys.astype(np.float32).reshape(count, experts, heads, key_size)
    values, value_scales = rows.values, rows.value_scales
    if values.dtype == np.uint8:
        # Exact: a float16 times 4 bits fits a float32.
        values, value_scales = dequantize(values, value_scales), None
    values = values.astype(np.float32).reshape(count, experts, heads, -1)

    scores = np.einsum("tgk,sngk->gtns", query / np.float32(math.sqrt(key_size)), keys)
    if rows.key_scales is not None:
        scores *= rows.key_scales.T
    row = np.arange(count)
    age = row[count - tokens :, None] - row
    attended = (age >= 0) & (age < window) & (row >= start)
    scores += age_bias[:, :, age.clip(0, window - 1)].transpose(0, 2, 1, 3)
    scores[~np.broadcast_to(attended[None, :, None, :], scores.shape)] = -np.inf

    weights = np.exp(scores - scores.max(axis=(2, 3), keepdims=True))
    weights /= weights.sum(axis=(2, 3), keepdims=True)
    if value_scales is not None:
        weights *= value_scales.T
    mixed: NDArray[np.float32] = np.einsum("gtns,snge->tge", weights, values)
    return mixed.reshape(tokens, -1)
