"""How a query mixes the key-value experts of a window of tokens (docs/model.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from molkv_model.config import ModelConfig

__all__ = [
    "first_age_bias",
    "past_attention",
    "shift_heads",
    "windowed_attention",
    "windowed_gates",
]

_SHARE = 4
"""At the start the current token's experts weigh so many times as much as all past ones."""


def first_age_bias(config: ModelConfig) -> Tensor:
    """The age bias [G, N, W] before training.

    Without a start that favours it, the current token's N experts drown among the N·W of the
    window.
    """
    heads, count, window = config.expert_query_heads, config.num_experts, config.expert_window
    bias = torch.zeros(heads, count, window)
    if config.expert_age_start == "level":
        return bias
    if config.expert_scoring in ("sigmoid", "silu"):
        # Gates share no sum: the current token's add up to about one, the past's to a quarter.
        if config.expert_scoring == "sigmoid":
            bias[:] = -math.log(_SHARE * count * window)
            bias[:, :, 0] = -math.log(count)
        else:  # silu(x) is about x/2 near 0
            bias[:] = 2.0 / (_SHARE * count * window)
            bias[:, :, 0] = 2.0 / count
        return bias
    if config.expert_age_start == "fading":
        slopes = 2.0 ** -torch.arange(2, heads + 2)
        bias -= slopes[:, None, None] * torch.arange(window)
        past = bias[:, :1, 1:].exp().sum(dim=2)
        bias[:, :, 0] = torch.log(_SHARE * past + 1e-9) if window > 1 else 0.0
        return bias
    bias[:, :, 0] = math.log(_SHARE * window)
    return bias


def shift_heads(keys: Tensor, count: int) -> Tensor:
    """Keys [B, T, N, G, dk] whose first `count` heads are those of the token before; zero at 0."""
    if count == 0:
        return keys
    before = functional.pad(keys[:, :-1, :, :count], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([before, keys[:, :, :, count:]], dim=3)


def windowed_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    age_bias: Tensor,
    null_score: Tensor | None = None,
) -> Tensor:
    """Attention of each position over the key-value experts of the last W tokens.

    One softmax runs over all (token, expert) pairs of the window (docs/model.md). Positions are
    cut into blocks of W, which see their own block and the one before: work grows with T·W.

    Args:
        query: [B, T, G, dk].
        keys: [B, T, N, G, dk].
        values: [B, T, N, d], d a multiple of G.
        age_bias: [G, N, W], added to the score of expert n of the token that is `age` back.
        null_score: [G], the score of one more candidate, whose value is zero; None without one.

    Returns:
        [B, T, d].
    """
    blocks = _Blocks(query, keys, values, age_bias.shape[2])
    block_keys, block_values = blocks.keys, blocks.values
    bias = blocks.bias(age_bias)
    if null_score is not None:
        block_keys, block_values = (
            functional.pad(rows, (0, 0, 0, 1)) for rows in (block_keys, block_values)
        )
        bias = torch.cat([bias, null_score[:, None, None].expand(*bias.shape[:-1], 1)], dim=-1)
    mixed = functional.scaled_dot_product_attention(
        blocks.query, block_keys, block_values, attn_mask=bias
    )
    return blocks.in_sequence(mixed)


def past_attention(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    """The same over the tokens before the current one, and a null candidate of score zero."""
    never = torch.full_like(age_bias[:, :, :1], float("-inf"))
    null_score = age_bias.new_zeros(age_bias.shape[0])
    past = torch.cat([never, age_bias[:, :, 1:]], dim=2)
    return windowed_attention(query, keys, values, past, null_score)


def windowed_gates(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    age_bias: Tensor,
    gate: Callable[[Tensor], Tensor],
) -> Tensor:
    """As `windowed_attention`, but each pair's weight is the gate of its own score alone."""
    blocks = _Blocks(query, keys, values, age_bias.shape[2])
    bias = blocks.bias(age_bias)
    scores = blocks.query @ blocks.keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
    outside = bias == float("-inf")
    weights = gate(scores + bias.masked_fill(outside, 0.0)).masked_fill(outside, 0.0)
    return blocks.in_sequence(weights @ blocks.values)


class _Blocks:
    """A sequence cut into blocks of W positions, each with its own rows and the block before.

    Attributes:
        query: [B, blocks, G, W, dk].
        keys: [B, blocks, G, 2W·N, dk].
        values: [B, blocks, G, 2W·N, d/G].
    """

    def __init__(self, query: Tensor, keys: Tensor, values: Tensor, window: int) -> None:
        self.window, self.length = window, query.shape[1]
        self.count = -(-self.length // window)
        self.padding = self.count * window - self.length
        padded_query = functional.pad(query, (0, 0, 0, 0, 0, self.padding))
        self.query = torch.unflatten(padded_query, 1, (self.count, window)).transpose(2, 3)
        self.keys = self._rows(keys)
        self.values = self._rows(torch.unflatten(values, -1, (query.shape[2], -1)))

    def _rows(self, rows: Tensor) -> Tensor:  # [B, T, N, G, x] -> [B, blocks, G, 2W·N, x]
        padded = functional.pad(rows, (0, 0, 0, 0, 0, 0, self.window, self.padding))
        cut = torch.unflatten(padded, 1, (self.count + 1, self.window))
        pairs = torch.cat([cut[:, :-1], cut[:, 1:]], dim=2)
        return pairs.permute(0, 1, 4, 2, 3, 5).flatten(3, 4)

    def in_sequence(self, mixed: Tensor) -> Tensor:
        """[B, blocks, G, W, d/G] -> [B, T, d]."""
        joined = mixed.transpose(2, 3).flatten(3).flatten(1, 2)
        return joined[:, : self.length]

    def bias(self, age_bias: Tensor) -> Tensor:
        """[blocks, G, W, 2W·N]: the bias where the age is in the window, else minus infinity."""
        window = self.window
        query_row = torch.arange(window, device=age_bias.device) + window
        age = query_row[:, None] - torch.arange(2 * window, device=age_bias.device)
        inside = (age >= 0) & (age < window)
        bias = age_bias[:, :, age.clamp(0, window - 1)].masked_fill(~inside, float("-inf"))
        bias = bias.permute(0, 2, 3, 1)  # [G, W, 2W, N]
        # The first block has no block before it, only padding.
        first = bias.clone()
        first[:, :, :window] = float("-inf")
        return torch.stack([first, *[bias] * (self.count - 1)]).flatten(3)
