"""The experts: functions of the token id alone while training, rows of a table afterwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from molkv_model.expert_mixing import (
    first_age_bias,
    past_attention,
    shift_heads,
    windowed_attention,
    windowed_gates,
)

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
            source = width if config.expert_key_source == "hidden" else hidden
            self.key_proj = nn.Parameter(torch.empty(count, heads * key_size, source))
            self.query_proj = nn.Linear(hidden, heads * key_size, bias=False)
            if config.expert_key_norm:
                self.key_norm = nn.RMSNorm(key_size, eps=config.rms_norm_eps)
                self.query_norm = nn.RMSNorm(key_size, eps=config.rms_norm_eps)
            if config.expert_scoring != "key":
                self.age_bias = nn.Parameter(torch.empty(heads, count, config.expert_window))
            if config.expert_null:
                self.null_score = nn.Parameter(torch.empty(heads))
            if config.expert_scoring == "router_and_past":
                self.past_gate = nn.Linear(hidden, heads, bias=False)
        if not config.has_keys or config.expert_scoring == "router_and_past":
            self.router = nn.Linear(hidden, count, bias=False)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Random weights; the age bias starts so that the current token's experts dominate."""
        residual_std = 0.02 / math.sqrt(2 * self.config.num_hidden_layers)
        nn.init.normal_(self.up_proj, std=0.02, generator=generator)
        nn.init.normal_(self.down_proj, std=residual_std, generator=generator)
        if self.config.has_keys:
            nn.init.normal_(self.key_proj, std=0.02, generator=generator)
            if self.config.expert_scoring != "key":
                self.age_bias.data.copy_(first_age_bias(self.config))
            if self.config.expert_null:
                nn.init.zeros_(self.null_score)

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
        if self.config.expert_key_source == "hidden":
            keys = torch.einsum("nem,ekm->nek", hidden, self.key_proj)
        else:
            keys = torch.einsum("nd,ekd->nek", normed, self.key_proj)
        in_heads = self._in_heads(keys)
        return self.key_norm(in_heads) if self.config.expert_key_norm else in_heads, values

    def query(self, x: Tensor) -> Tensor:
        """Queries [..., G, dk] of hidden states x [..., d]."""
        in_heads = self._in_heads(self.query_proj(x))
        return self.query_norm(in_heads) if self.config.expert_key_norm else in_heads

    def forward(self, x: Tensor, embeddings: Tensor, token_index: Tensor) -> Tensor:
        """The experts' contribution to the residual stream.

        Args:
            x: [B, T, d], the normalised hidden states.
            embeddings: [U, d], the embedding rows of the batch's distinct token ids.
            token_index: int64 [B, T], each token's row in `embeddings`.

        Returns:
            [B, T, d].
        """
        keys, table = self.table(embeddings)
        values = table[token_index]
        if keys is None:
            return self._routed(x, values)
        config, query = self.config, self.query(x)
        keys = shift_heads(keys[token_index], config.expert_shifted_heads)
        if config.expert_scoring in ("key_age", "key"):
            null = self.null_score if config.expert_null else None
            return windowed_attention(query, keys, values, self.bias(), null)
        if config.expert_scoring == "router_and_past":
            past = past_attention(query, keys, values, self.bias())
            gate = torch.sigmoid(self.past_gate(x))[..., None]
            gated = gate * torch.unflatten(past, -1, (config.expert_query_heads, -1))
            return self._routed(x, values) + gated.flatten(-2)
        gate_of = torch.sigmoid if config.expert_scoring == "sigmoid" else functional.silu
        return windowed_gates(query, keys, values, self.bias(), gate_of)

    def bias(self) -> Tensor:
        """The age bias [G, N, W]; zeros where the scoring has none."""
        config = self.config
        if config.expert_scoring != "key":
            return self.age_bias
        shape = (config.expert_query_heads, config.num_experts, config.expert_window)
        # Not `new_zeros`, which a quantized weight lacks.
        weight = self.query_proj.weight
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)

    def _routed(self, x: Tensor, values: Tensor) -> Tensor:
        """The current token's values mixed by the router, as MoLE does."""
        scores = torch.softmax(self.router(x), dim=-1)
        return torch.einsum("btn,btnd->btd", scores, values)

    def _in_heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (self.config.expert_query_heads, self.config.expert_key_size))
