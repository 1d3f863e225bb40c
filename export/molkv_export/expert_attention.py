"""``molkv::expert_attention`` as a torch custom op: schema, shape function and reference.

docs/graph.md is the op's specification. The reference works on the window as it is stored,
quantized, so that every runtime has one answer to match.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from molkv_runtime.row_geometry import INT4_GROUP

__all__ = ["expert_attention", "reference_expert_attention"]


def reference_expert_attention(
    query: Tensor,
    keys: Tensor,
    key_scales: Tensor | None,
    values: Tensor,
    value_scales: Tensor | None,
    age_bias: Tensor,
    start: Tensor,
) -> Tensor:
    """The op's definition, in float32.

    Args:
        query: float32 [T, G, dk]; token t sits in row S - T + t of the window.
        keys: int8 or float16 [S, N, G·dk].
        key_scales: float32 [S, N] for int8 keys, else None.
        values: int8 or float16 [S, N, d], or int4 as uint8 [S, N, d/2], two elements a byte.
        value_scales: float32 [S, N] for int8 values, float16 [S, N, d/32] for int4, else None.
        age_bias: float32 [G, N, W].
        start: int64 [1]; rows before it are padding.

    Returns:
        float32 [T, d].
    """
    tokens, heads, key_size = query.shape
    rows = keys.shape[0]
    window = age_bias.shape[2]
    keys = keys.float().reshape(rows, -1, heads, key_size)
    if values.dtype == torch.uint8:
        # Exact: a float16 times 4 bits fits a float32.
        values, value_scales = _dequantized_int4(values, value_scales), None
    values = values.float().reshape(*keys.shape[:3], -1)
    scores = torch.einsum("tgk,sngk->gtns", query / math.sqrt(key_size), keys)
    if key_scales is not None:
        scores = scores * key_scales.T
    row = torch.arange(rows, device=query.device)
    age = row[rows - tokens :, None] - row
    attended = (age >= 0) & (age < window) & (row >= start)
    bias = age_bias[:, :, age.clamp(0, window - 1)].transpose(1, 2)
    scores = (scores + bias).masked_fill(~attended[None, :, None, :], float("-inf"))
    weights = torch.softmax(scores.flatten(2), dim=-1).view_as(scores)
    if value_scales is not None:
        weights = weights * value_scales.T
    return torch.einsum("gtns,snge->tge", weights, values).flatten(1)


def _dequantized_int4(values: Tensor, scales: Tensor | None) -> Tensor:
    """float32 [S, N, d] of packed values; the first element of a byte is in its low four bits."""
    if scales is None:
        raise ValueError("int4 values need the scales of their groups")
    pairs = torch.stack([values & 15, values >> 4], dim=-1).to(torch.int8)
    groups = ((pairs ^ 8) - 8).reshape(*scales.shape, INT4_GROUP)  # two's complement of four bits
    return (groups * scales.float()[..., None]).flatten(2)


@torch.library.custom_op("molkv::expert_attention", mutates_args=())
def expert_attention(
    query: Tensor,
    keys: Tensor,
    key_scales: Tensor | None,
    values: Tensor,
    value_scales: Tensor | None,
    age_bias: Tensor,
    start: Tensor,
) -> Tensor:
    """`reference_expert_attention` as an opaque op that exporters keep as one node."""
    return reference_expert_attention(
        query, keys, key_scales, values, value_scales, age_bias, start
    )


@expert_attention.register_fake
def _(
    query: Tensor,
    keys: Tensor,  # noqa: ARG001
    key_scales: Tensor | None,  # noqa: ARG001
    values: Tensor,
    value_scales: Tensor | None,  # noqa: ARG001
    age_bias: Tensor,  # noqa: ARG001
    start: Tensor,  # noqa: ARG001
) -> Tensor:
    packed = 2 if values.dtype == torch.uint8 else 1
    return query.new_empty(query.shape[0], values.shape[2] * packed)
