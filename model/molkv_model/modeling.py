"""The transformer: one code path for dense, MoLE and MoLKV (docs/model.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from molkv_model.errors import ModelError
from molkv_model.experts import LookupExperts

if TYPE_CHECKING:
    from molkv_model.config import ModelConfig

__all__ = ["LanguageModel", "Layer", "rotary_table", "rotate"]


def rotary_table(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each float32 [context, head_dim / 2].

    Always on the CPU, so that a model made on the meta device has them too.
    """
    half = config.head_dim // 2
    with torch.device("cpu"):
        frequency = config.rope_theta ** -(torch.arange(half, dtype=torch.float64) / half)
        position = torch.arange(config.max_position_embeddings, dtype=torch.float64)
    angle = torch.outer(position, frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of heads [B, h, T, head_dim], halves paired (not interleaved)."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class SelfAttention(nn.Module):
    """Causal grouped-query attention with rotary embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, head = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * head, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * head, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * head, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * head, hidden, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Map x [B, T, d] to [B, T, d]."""

        def heads(projected: Tensor) -> Tensor:
            return torch.unflatten(projected, -1, (-1, self.config.head_dim)).transpose(1, 2)

        mixed = functional.scaled_dot_product_attention(
            rotate(heads(self.q_proj(x)), cosine, sine),
            rotate(heads(self.k_proj(x)), cosine, sine),
            heads(self.v_proj(x)),
            is_causal=True,
            enable_gqa=self.config.num_key_value_heads != self.config.num_attention_heads,
        )
        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return output


class FeedForward(nn.Module):
    """The network that all tokens share: SwiGLU, or two layers with an exact GELU between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, width = config.hidden_size, config.intermediate_size
        self.gate_proj: nn.Linear | None = None
        if config.feed_forward == "swiglu":
            self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, d] to [B, T, d]."""
        up = self.up_proj(x)
        inner = (
            functional.gelu(up)
            if self.gate_proj is None
            else functional.silu(self.gate_proj(x)) * up
        )
        output: Tensor = self.down_proj(inner)
        return output


class Layer(nn.Module):
    """Self-attention, then the shared network and the experts side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = FeedForward(config)
        self.experts = LookupExperts(config) if config.has_experts else None

    def forward(
        self, h: Tensor, embeddings: Tensor, token_index: Tensor, cosine: Tensor, sine: Tensor
    ) -> Tensor:
        """Map h [B, T, d] to [B, T, d]; `embeddings` and `token_index` as in `LookupExperts`."""
        h = h + self.self_attn(self.input_layernorm(h), cosine, sine)
        x = self.post_attention_layernorm(h)
        y: Tensor = h + self.mlp(x)
        if self.experts is not None:
            y = y + self.experts(x, embeddings, token_index)
        return y


class Backbone(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Its own constructor draws random numbers, on the meta device through torch's compiler,
        # which takes seconds to import.
        weight = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
            weight, freeze=False
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class LanguageModel(nn.Module):
    """A causal language model.

    Its state dict is the checkpoint's, name by name; a tied head has no tensor of its own.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        cosine, sine = rotary_table(config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def reset_parameters(self, seed: int) -> None:
        """Random weights: normal with deviation 0.02, residual outputs scaled by depth."""
        generator = torch.Generator().manual_seed(seed)
        residual_std = 0.02 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith(("o_proj", "down_proj"))
                std = residual_std if residual else 0.02
                nn.init.normal_(module.weight, std=std, generator=generator)
            elif isinstance(module, LookupExperts):
                module.reset_parameters(generator)

    @property
    def head_weight(self) -> Tensor:
        """[V, d], the output projection."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of every position.

        Args:
            input_ids: int64 [B, T], T at most the context.

        Returns:
            float [B, T, V].

        Raises:
            ModelError: the input is longer than the context.
        """
        return functional.linear(self.hidden_states(input_ids), self.head_weight)

    def hidden_states(self, input_ids: Tensor) -> Tensor:
        """What `forward` does before the head; float [B, T, d], the final norm included."""
        length, context = input_ids.shape[1], self.config.max_position_embeddings
        if length > context:
            raise ModelError(
                f"the input is {length} tokens long, the context {context}", fix="pass fewer"
            )
        # Experts depend on the id alone, so each distinct id of the batch is computed once.
        distinct, token_index = torch.unique(input_ids, return_inverse=True)
        embeddings = self.model.embed_tokens(distinct)
        h = functional.embedding(token_index, embeddings)
        cosine, sine = self.cosine[:length], self.sine[:length]
        for layer in self.model.layers:
            h = layer(h, embeddings, token_index, cosine, sine)
        normalized: Tensor = self.model.norm(h)
        return normalized
