"""The dense graph in torch: the model with its experts taken out (docs/graph.md).

It is the reference that every runtime's logits are compared with. The ONNX graph is not traced
from it but written node by node. `torch.export` takes it too, and keeps the op as one node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molkv_export.cache_scales import CacheScales
from molkv_export.expert_attention import expert_attention
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_model.experts import LookupExperts
from molkv_model.modeling import LanguageModel, Layer, SelfAttention, rotary_table, rotate

__all__ = ["DenseGraph", "ExpertPlanes", "is_expert_table_tensor"]

_TABLE_TENSORS = ("norm.weight", "up_proj", "down_proj", "key_proj", "key_norm.weight")


def is_expert_table_tensor(name: str) -> bool:
    """Whether a checkpoint tensor is spent once the experts are a table."""
    return any(name.endswith(f".experts.{suffix}") for suffix in _TABLE_TENSORS)


@dataclass(frozen=True)
class ExpertPlanes:
    """One layer's window, as stored in the blob.

    Attributes:
        keys: int8 or float16 [S, N, G·dk]; None for MoLE.
        key_scales: float32 [S, N]; None for float16.
        values: int8 or float16 [S, N, d], or int4 as uint8 [S, N, d/2].
        value_scales: float32 [S, N]; float16 [S, N, d/32] for int4, None for float16.
    """

    keys: Tensor | None
    key_scales: Tensor | None
    values: Tensor
    value_scales: Tensor | None


class DenseGraph(nn.Module):
    """One step of the model: T new tokens, a window of experts, a self-attention cache of its own.

    Args:
        model: a float32 language model; shared weights are not copied.
        attention: the op, which `torch.export` keeps as one node, or its definition, which runs
            faster.
    """

    def __init__(
        self, model: LanguageModel, attention: Callable[..., Tensor] = expert_attention
    ) -> None:
        super().__init__()
        self._attention = attention
        self.config = model.config
        self.model = model
        self.cache_scales: CacheScales | None = None
        shape = (
            model.config.num_hidden_layers,
            model.config.num_key_value_heads,
            model.config.max_position_embeddings,
            model.config.head_dim,
        )
        self.register_buffer("key_cache", torch.zeros(shape), persistent=False)
        self.register_buffer("value_cache", torch.zeros(shape), persistent=False)
        cosine, sine = rotary_table(model.config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    key_cache: Tensor
    value_cache: Tensor
    cosine: Tensor
    sine: Tensor

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        attention: Callable[..., Tensor] = expert_attention,
        *,
        without: Collection[str] = (),
    ) -> DenseGraph:
        """Load the dense weights, but those in `without`; the expert networks are not read."""
        with torch.device("meta"):
            model = LanguageModel(checkpoint.config)
        names = [name for name in checkpoint.names if not is_expert_table_tensor(name)]
        tensors = {name: checkpoint.tensor(name) for name in names if name not in without}
        model.load_state_dict(tensors, assign=True, strict=False)
        return cls(model, attention).eval()

    def forward(
        self,
        input_ids: Tensor,
        position: int,
        window: Sequence[ExpertPlanes],
        start: Tensor,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """Run T new tokens and append them to the self-attention cache.

        Args:
            input_ids: int64 [1, T].
            position: absolute position of the first new token.
            window: each layer's expert window of S rows, the new tokens' last; empty for dense.
            start: int64 [1], rows of the window before this one are padding.
            embeddings: float32 [1, T, d], where rows carry them; None looks them up in the table.

        Returns:
            float32 [1, T, V].
        """
        return self.head(self.hidden_states(input_ids, position, window, start, embeddings))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states: float32 [..., d] to [..., V]."""
        return F.linear(hidden, self.model.head_weight)

    def hidden_states(
        self,
        input_ids: Tensor,
        position: int,
        window: Sequence[ExpertPlanes],
        start: Tensor,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """What `forward` does before the head; float32 [1, T, d], the final norm included."""
        h = self.model.model.embed_tokens(input_ids) if embeddings is None else embeddings
        for number, layer in enumerate(self.model.model.layers):
            assert isinstance(layer, Layer)  # noqa: S101 - for the type checker
            x = layer.input_layernorm(h)
            h = h + self._self_attention(number, layer.self_attn, x, position)
            x = layer.post_attention_layernorm(h)
            y = h + layer.mlp(x)
            if layer.experts is not None:
                y = y + self._experts(layer.experts, x[0], window[number], start)
            h = y
        normalized: Tensor = self.model.model.norm(h)
        return normalized

    def _self_attention(
        self, number: int, attention: SelfAttention, x: Tensor, position: int
    ) -> Tensor:
        config: ModelConfig = self.config
        stop = position + x.shape[1]
        cosine, sine = self.cosine[position:stop], self.sine[position:stop]

        def heads(projected: Tensor) -> Tensor:
            return projected.reshape(1, x.shape[1], -1, config.head_dim).transpose(1, 2)

        keys = rotate(heads(attention.k_proj(x)), cosine, sine)
        values = heads(attention.v_proj(x))
        if self.cache_scales is not None:
            keys, values = self.cache_scales.round_trip(number, keys, values)
        self.key_cache[number, :, position:stop] = keys[0]
        self.value_cache[number, :, position:stop] = values[0]
        seen = torch.arange(stop) <= torch.arange(position, stop)[:, None]
        mixed = F.scaled_dot_product_attention(
            rotate(heads(attention.q_proj(x)), cosine, sine),
            self.key_cache[None, number, :, :stop],
            self.value_cache[None, number, :, :stop],
            attn_mask=seen,
            enable_gqa=config.num_key_value_heads != config.num_attention_heads,
        )
        output: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return output

    def _experts(
        self, experts: LookupExperts, x: Tensor, planes: ExpertPlanes, start: Tensor
    ) -> Tensor:
        if planes.keys is not None:
            query, keys, key_scales = experts.query(x), planes.keys, planes.key_scales
            bias = experts.bias()
        else:
            # MoLE is the same op with one-hot keys and a window of one: the score is the router's.
            count = self.config.num_experts
            query = experts.router(x)[:, None, :] * count**0.5
            keys = torch.eye(count, dtype=torch.int8).expand(len(planes.values), -1, -1)
            key_scales = None
            bias = x.new_zeros(1, count, 1)
        return self._attention(
            query, keys, key_scales, planes.values, planes.value_scales, bias, start
        )
