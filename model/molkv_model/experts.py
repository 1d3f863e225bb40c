"""The experts: functions of the token id alone while training, rows of a table afterwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from molkv_model.config import ModelConfig

__all__ = ["LookupExperts", "windowed_attention"]


class LookupExperts(nn.Module):
    """The N experts of one layer, and how a hidden state mixes them (docs/model.md).

    While training, keys and values are computed from the embedding; `table` gives the same
    numbers for a slice of the vocabulary, which is all that export needs.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        count, width, hidden = (
            config.num_experts,
            config.expert_intermediate_size,
            config.hidden_size,
        )
        self.norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.up_proj = nn.Parameter(torch.empty(count, width, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, width))
        if config.has_keys:
            heads, key_size = config.expert_query_heads, config.expert_key_size
            self.key_proj = nn.Parameter(torch.empty(count, heads * key_size, width))
            self.key_norm = nn.RMSNorm(key_size, eps=config.rms_norm_eps)
            self.query_proj = nn.Linear(hidden, heads * key_size, bias=False)
            self.query_norm = nn.RMSNorm(key_size, eps=config.rms_norm_eps)
            if config.expert_scoring == "key_age":
                self.age_bias = nn.Parameter(torch.empty(heads, count, config.expert_window))
        else:
            self.router = nn.Linear(hidden, count, bias=False)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Random weights; the age bias starts so that the current token's experts dominate."""
        residual_std = 0.02 / math.sqrt(2 * self.config.num_hidden_layers)
        nn.init.normal_(self.up_proj, std=0.02, generator=generator)
        nn.init.normal_(self.down_proj, std=residual_std, generator=generator)
        if self.config.has_keys:
            nn.init.normal_(self.key_proj, std=0.02, generator=generator)
            if self.config.expert_scoring == "key_age":
                # Without this the current token's N experts drown among the N·W of the window.
                nn.init.zeros_(self.age_bias)
                self.age_bias.data[:, :, 0] = math.log(4 * self.config.expert_window)

    def table(self, embeddings: Tensor) -> tuple[Tensor | None, Tensor]:
        """The experts of some tokens, as constants.

        Args:
            embeddings: [n, d], rows of the embedding.

        Returns:
            keys [n, N, G, dk] (None for MoLE) and values [n, N, d].
        """
        normed = self.norm(embeddings)
        hidden = functional.gelu(torch.einsum("nd,emd->nem", normed, self.up_proj))
        values = torch.einsum("nem,edm->ned", hidden, self.down_proj)
        if not self.config.has_keys:
            return None, values
        keys = torch.einsum("nem,ekm->nek", hidden, self.key_proj)
        normed_keys: Tensor = self.key_norm(self._in_heads(keys))
        return normed_keys, values

    def query(self, x: Tensor) -> Tensor:
        """Queries [..., G, dk] of hidden states x [..., d]."""
        normed: Tensor = self.query_norm(self._in_heads(self.query_proj(x)))
        return normed

    def forward(self, x: Tensor, embeddings: Tensor, token_index: Tensor) -> Tensor:
        """The experts' contribution to the residual stream.

        Args:
            x: [B, T, d], the normalised hidden states.
            embeddings: [U, d], the embedding rows of the batch's distinct token ids.
            token_index: int64 [B, T], each token's row in `embeddings`.

        Returns:
            [B, T, d].
        """
        keys, values = self.table(embeddings)
        if keys is None:
            scores = torch.softmax(self.router(x), dim=-1)
            return torch.einsum("btn,btnd->btd", scores, values[token_index])
        return windowed_attention(
            self.query(x), keys[token_index], values[token_index], self.bias()
        )

    def bias(self) -> Tensor:
        """The age bias [G, N, W]; zeros where the scoring has none."""
        config = self.config
        if config.expert_scoring == "key_age":
            return self.age_bias
        shape = (config.expert_query_heads, config.num_experts, config.expert_window)
        return self.query_norm.weight.new_zeros(shape)

    def _in_heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.config.expert_query_heads, self.config.expert_key_size))


def windowed_attention(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    """Attention of each position over the key-value experts of the last W tokens.

    One softmax runs over all (token, expert) pairs of the window (docs/model.md). Positions are
    cut into blocks of W, which see their own block and the one before: work grows with T·W.

    Args:
        query: [B, T, G, dk].
        keys: [B, T, N, G, dk].
        values: [B, T, N, d], d a multiple of G.
        age_bias: [G, N, W], added to the score of expert n of the token that is `age` back.

    Returns:
        [B, T, d].
    """
    batch, length, heads, _ = query.shape
    window = age_bias.shape[2]
    blocks = -(-length // window)
    padding = blocks * window - length

    def in_blocks(rows: Tensor) -> Tensor:  # [B, T, N, G, x] -> [B, blocks, G, 2W·N, x]
        padded = functional.pad(rows, (0, 0, 0, 0, 0, 0, window, padding))
        cut = torch.unflatten(padded, 1, (blocks + 1, window))
        pairs = torch.cat([cut[:, :-1], cut[:, 1:]], dim=2)
        return pairs.permute(0, 1, 4, 2, 3, 5).flatten(3, 4)

    padded_query = functional.pad(query, (0, 0, 0, 0, 0, padding))
    query_blocks = torch.unflatten(padded_query, 1, (blocks, window)).transpose(2, 3)
    mixed = functional.scaled_dot_product_attention(
        query_blocks,
        in_blocks(keys),
        in_blocks(torch.unflatten(values, -1, (heads, -1))),
        attn_mask=_block_bias(age_bias, blocks),
    )  # [B, blocks, G, W, d/G]
    return mixed.transpose(2, 3).reshape(batch, blocks * window, -1)[:, :length]


def _block_bias(age_bias: Tensor, blocks: int) -> Tensor:
    """[blocks, G, W, 2W·N]: the bias where the age is in the window, minus infinity elsewhere."""
    window = age_bias.shape[2]
    query_row = torch.arange(window, device=age_bias.device) + window
    age = query_row[:, None] - torch.arange(2 * window, device=age_bias.device)
    inside = (age >= 0) & (age < window)
    bias = age_bias[:, :, age.clamp(0, window - 1)].masked_fill(~inside, float("-inf"))
    bias = bias.permute(0, 2, 3, 1)  # [G, W, 2W, N]
    # The first block has no block before it, only padding.
    first = bias.clone()
    first[:, :, :window] = float("-inf")
    return torch.stack([first, *[bias] * (blocks - 1)]).flatten(3)
