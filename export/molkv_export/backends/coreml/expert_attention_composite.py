"""``molkv::expert_attention`` as a composite of MIL ops, on float16 rows.

Rows are laid out by head, ``[G, S * N, width]``: the (row, expert) pairs of a head are one axis, so
that scores, softmax and mix are two products and one softmax, and a row is appended by writing one
contiguous slice for each head. Custom layers do not exist in ML programs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813 - MIL's own name for it

__all__ = ["age_index", "expert_attention", "own_experts", "rows_by_head"]

Var = Any


def rows_by_head(rows: Var, heads: int, size: int, name: str) -> Var:
    """Rows as the blob has them, [T, N, G * x], to [G, T * N, size], padded with zeros."""
    tokens, experts, width = rows.shape
    part = width // heads
    split = mb.reshape(x=rows, shape=[tokens, experts, heads, part], name=f"{name}_heads")
    if size > part:
        padding = [0, 0, 0, 0, 0, 0, 0, size - part]
        split = mb.pad(x=split, pad=padding, mode="constant", name=f"{name}_padded")
    ordered = mb.transpose(x=split, perm=[2, 0, 1, 3], name=f"{name}_transposed")
    return mb.reshape(x=ordered, shape=[heads, tokens * experts, size], name=f"{name}_by_head")


def age_index(age: Var, oldest: Var, window: int, name: str) -> Var:
    """The row of the age table to use: the age, or W (masked) where the row is not attended.

    Args:
        age: int32 [T, S], not negative.
        oldest: int32, broadcastable to it: the largest age at which a row is of this sequence.
        window: W.
        name: of the ops.
    """
    inside = mb.logical_and(
        x=mb.less(x=age, y=np.int32(window), name=f"{name}_inside"),
        y=mb.less_equal(x=age, y=oldest, name=f"{name}_written"),
        name=f"{name}_attended",
    )
    masked = np.full(age.shape, window, np.int32)
    return mb.select(cond=inside, a=age, b=masked, name=name)


def expert_attention(query: Var, keys: Var, values: Var, table: Var, index: Var, name: str) -> Var:
    """Attention of T tokens over S rows of N experts.

    Args:
        query: float16 [T, G, dk], already divided by sqrt(dk).
        keys: float16 [G, S * N, key_size].
        values: float16 [G, S * N, value_size].
        table: float16 [W + 1, G * N], the age bias, its last row masking.
        index: int32 [T, S], the row of the table for each token and row.
        name: prefix of the ops' names.

    Returns:
        float16 [T, G, value_size]; columns beyond d / G are zero.
    """
    tokens, heads, key_size = query.shape
    rows = index.shape[1]
    experts = keys.shape[1] // rows
    if keys.shape[2] > key_size:
        padding = [0, 0, 0, 0, 0, keys.shape[2] - key_size]
        query = mb.pad(x=query, pad=padding, mode="constant", name=f"{name}_query_padded")
    query = mb.transpose(x=query, perm=[1, 0, 2], name=f"{name}_query_by_head")
    bias = mb.gather(x=table, indices=index, axis=0, name=f"{name}_bias_rows")
    bias = mb.reshape(x=bias, shape=[tokens, rows, heads, experts], name=f"{name}_bias_heads")
    bias = mb.transpose(x=bias, perm=[2, 0, 1, 3], name=f"{name}_bias_by_head")
    bias = mb.reshape(x=bias, shape=[heads, tokens, rows * experts], name=f"{name}_bias")
    scores = mb.matmul(x=query, y=keys, transpose_y=True, name=f"{name}_products")
    scores = mb.add(x=scores, y=bias, name=f"{name}_scores")
    weights = mb.softmax(x=scores, axis=-1, name=f"{name}_weights")
    mixed = mb.matmul(x=weights, y=values, name=f"{name}_mix")
    return mb.transpose(x=mixed, perm=[1, 0, 2], name=f"{name}_mixed")


def own_experts(scores: Var, values: Var, name: str) -> Var:
    """The op where the window is the token itself, as MoLE has it.

    Args:
        scores: float16 [T, N], the router's.
        values: float16 [T, N, d].
        name: prefix of the ops' names.

    Returns:
        float16 [T, d].
    """
    weights = mb.softmax(x=scores, axis=-1, name=f"{name}_weights")
    weights = mb.expand_dims(x=weights, axes=[1], name=f"{name}_weights_row")
    mixed = mb.matmul(x=weights, y=values, name=f"{name}_mix")
    return mb.squeeze(x=mixed, axes=[1], name=f"{name}_output")
