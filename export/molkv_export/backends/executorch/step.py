"""One step of the dense graph, in the form that `torch.export` lowers to ExecuTorch.

The same model as `molkv_export.dense_graph`. Positions are tensors instead of Python numbers, the
self-attention cache is buffers that ExecuTorch's own LLM operators append to and attend over, and
only the positions whose logits are wanted go through the head. What stays between these operators
is written so that XNNPACK takes all of it in one piece (docs/executorch.md, "The graph").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from molkv_export.backends.executorch.custom_operators import load_language_model_operators
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_export.expert_attention import expert_attention
from molkv_model.modeling import LanguageModel, rotary_table

if TYPE_CHECKING:
    from molkv_model.checkpoint import Checkpoint
    from molkv_model.config import ModelConfig
    from molkv_model.experts import LookupExperts
    from molkv_model.modeling import Layer, SelfAttention
    from molkv_runtime.manifest import EmbeddingPrecision
    from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["DecoderStep", "expert_planes"]


def expert_planes(config: ModelConfig, experts: ExpertPrecision) -> tuple[str, ...]:
    """The window planes of one layer, in the order in which a step takes them."""
    if not config.has_experts:
        return ()
    names = ["keys", "key_scales"] if config.has_keys else []
    names += ["values", "value_scales"]
    return tuple(name for name in names if experts != "f16" or not name.endswith("_scales"))


class DecoderStep(nn.Module):
    """T new tokens, a window of experts, a self-attention cache of its own.

    Args:
        model: a float32 language model without its expert networks. Its weights are not copied.
        experts: how the window's rows are stored.
        embedding: precision of the input embedding in the rows; None looks it up in the model's.
    """

    cosine: Tensor
    sine: Tensor
    half_turn: Tensor
    epsilon: Tensor

    def __init__(
        self,
        model: LanguageModel,
        experts: ExpertPrecision,
        embedding: EmbeddingPrecision | None = None,
    ) -> None:
        super().__init__()
        load_language_model_operators()
        self.config = config = model.config
        self.backbone = model.model
        self.planes = expert_planes(config, experts)
        # A module of its own also where it is tied: quantization turns modules, not functions.
        weight = model.head_weight
        self.head = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.head.weight = nn.Parameter(weight, requires_grad=False)
        self.takes_embeddings = embedding is not None
        if self.takes_embeddings:
            del self.backbone.embed_tokens
        shape = (1, config.max_position_embeddings, config.num_key_value_heads, config.head_dim)
        for number in range(config.num_hidden_layers):
            for kind in ("key", "value"):
                self.register_buffer(f"{kind}_cache_{number}", torch.zeros(shape))
        cosine, sine = rotary_table(config)
        self.register_buffer("cosine", cosine.repeat(1, 2)[None, :, None])
        self.register_buffer("sine", sine.repeat(1, 2)[None, :, None])
        self.register_buffer("half_turn", _half_turn(config.head_dim))
        for width in {config.hidden_size, config.expert_key_size if config.has_keys else 0} - {0}:
            self.register_buffer(f"mean_{width}", torch.full((1, width), 1 / width))
        self.register_buffer("epsilon", torch.tensor([config.rms_norm_eps]))

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        experts: ExpertPrecision,
        embedding: EmbeddingPrecision | None = None,
    ) -> DecoderStep:
        """Load the dense weights; the expert networks are not read."""
        with torch.device("meta"):
            model = LanguageModel(checkpoint.config)
        names = [name for name in checkpoint.names if not is_expert_table_tensor(name)]
        tensors = {name: checkpoint.tensor(name) for name in names}
        model.load_state_dict(tensors, assign=True, strict=False)
        for layer in model.model.layers:
            if layer.experts is not None:
                _prepare_experts(cast("LookupExperts", layer.experts))
        return cls(model, experts, embedding).eval().requires_grad_(False)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        window: Sequence[Tensor] = (),
        logits_index: Tensor | None = None,
    ) -> Tensor:
        """Run T new tokens and append them to the self-attention cache.

        Args:
            tokens: the new tokens' ids, int64 [1, T], or, where rows carry them, their embeddings,
                float32 [1, T, d].
            position: int64 [1], absolute position of the first new token.
            window: empty for dense. Else int64 [1], rows before this one are padding; then each
                layer's S rows, the new tokens' last, in the order of `expert_planes`.
            logits_index: int64 [R], which of the T positions to compute logits for; None for all.

        Returns:
            float32 [1, R, V].
        """
        length, context = tokens.shape[1], self.config.max_position_embeddings
        first = cast("int", position.item())  # symbolic while it is traced
        for bound in (first >= 0, first < context, first + length <= context):
            torch._check(bound)  # type: ignore[no-untyped-call]
        rotation = (self.cosine.narrow(1, first, length), self.sine.narrow(1, first, length))
        h = tokens if self.takes_embeddings else self.backbone.embed_tokens(tokens)
        for number, module in enumerate(self.backbone.layers):
            layer = cast("Layer", module)
            x = self._norm(h, layer.input_layernorm)
            h = h + self._self_attention(number, layer.self_attn, x, first, rotation)
            x = self._norm(h, layer.post_attention_layernorm)
            y = h + layer.mlp(x)
            if layer.experts is not None:
                y = y + self._experts(number, layer.experts, x, window)
            h = y
        if logits_index is not None:
            h = torch.index_select(h, 1, logits_index)
        logits: Tensor = self.head(self._norm(h, self.backbone.norm))
        return logits

    def _self_attention(
        self,
        number: int,
        attention: SelfAttention,
        x: Tensor,
        first: int,
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        def heads(projected: Tensor) -> Tensor:  # [1, T, h, head_dim]
            return projected.view(1, -1, projected.shape[2] // size, size)

        def rotate(x: Tensor) -> Tensor:
            return x * rotation[0] + functional.linear(x, self.half_turn) * rotation[1]

        size = self.config.head_dim
        keys, values = (getattr(self, f"{kind}_cache_{number}") for kind in ("key", "value"))
        query = rotate(heads(attention.q_proj(x)))
        torch.ops.llama.update_cache(rotate(heads(attention.k_proj(x))), keys, first)
        torch.ops.llama.update_cache(heads(attention.v_proj(x)), values, first)
        mixed = torch.ops.llama.custom_sdpa(query, keys, values, first, None, 0.0, True)
        output: Tensor = attention.o_proj(mixed.view(1, -1, self.config.hidden_size))
        return output

    def _experts(
        self, number: int, experts: LookupExperts, x: Tensor, window: Sequence[Tensor]
    ) -> Tensor:
        config, count = self.config, len(self.planes)
        start, mine = window[0], window[1 + number * count : 1 + (number + 1) * count]
        planes = dict(zip(self.planes, mine, strict=True))
        values = planes["values"]
        if config.has_keys:
            shape = (-1, config.expert_query_heads, config.expert_key_size)
            query = self._norm(experts.query_proj(x).view(shape), experts.query_norm)
            keys, bias = planes["keys"], experts.bias()
        else:
            # MoLE is the same op with one-hot keys and a window of one: the score is the router's.
            query = experts.router(x).view(-1, 1, config.num_experts)
            half = values.dtype == torch.float16
            one_hot = torch.eye(config.num_experts, dtype=torch.float16 if half else torch.int8)
            keys = one_hot.expand(values.shape[0], -1, -1)
            bias = torch.zeros(1, config.num_experts, 1)
        mixed: Tensor = expert_attention(
            query, keys, planes.get("key_scales"), values, planes.get("value_scales"), bias, start
        )
        return mixed.view(1, -1, config.hidden_size)

    def _norm(self, x: Tensor, norm: nn.RMSNorm) -> Tensor:
        """RMSNorm, its mean as a product: XNNPACK has no mean of the last axis alone."""
        mean = functional.linear(x * x, getattr(self, f"mean_{x.shape[-1]}"), self.epsilon)
        return x * torch.rsqrt(mean) * norm.weight


def _half_turn(size: int) -> Tensor:
    """[size, size], as a product's weight: halves (a, b) become (-b, a)."""
    half, zero = torch.eye(size // 2), torch.zeros(size // 2, size // 2)
    return torch.cat([torch.cat([zero, -half], 1), torch.cat([half, zero], 1)])


def _prepare_experts(experts: LookupExperts) -> None:
    """Drop the networks that the blob's rows replace, and scale a router for the op."""
    for name in ("up_proj", "down_proj", "key_proj", "key_norm", "norm"):
        if hasattr(experts, name):
            delattr(experts, name)
    if not experts.config.has_keys:
        # The op divides by sqrt(dk), and one-hot keys have dk = N.
        scaled = experts.router.weight * math.sqrt(experts.config.num_experts)
        experts.router.weight = nn.Parameter(scaled, requires_grad=False)
