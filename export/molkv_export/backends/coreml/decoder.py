"""The dense graph as MIL functions of static shape: one for prefill, one for decode.

Written op by op instead of traced, like the ONNX graph: tracing drops indexed cache writes silently
and leaves the choice of ops to chance. docs/ios.md says what the functions take and why.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813 - MIL's own name for it
from coremltools.converters.mil.mil import Function, Program, types

from molkv_export.backends.coreml.expert_attention_composite import (
    expert_attention,
    own_experts,
    rows_by_head,
)
from molkv_export.backends.coreml.expert_ring import (
    DecodeRing,
    PrefillRing,
    append,
    place,
    ring_states,
)
from molkv_export.backends.coreml.static_shapes import StaticShapes
from molkv_export.backends.coreml.target import OPSET
from molkv_export.backends.coreml.weights import MASKED, Float16, Weights
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.manifest import EmbeddingPrecision

__all__ = ["decode_program", "prefill_program"]

Var = Any
# Below every hidden state that matters; only keeps a row of zeros from being divided by zero.
_SMALLEST = 1e-4


def prefill_program(
    checkpoint: Checkpoint, shapes: StaticShapes, embedding: EmbeddingPrecision | None = None
) -> Program:
    """A program whose function takes a chunk of tokens, the last of them perhaps padding.

    Args:
        checkpoint: the trained model.
        shapes: what the function is compiled for.
        embedding: precision of the input embedding in the rows; None puts it into the function.

    Raises:
        ExportError: a weight is too large for float16.
    """
    return _Decoder(checkpoint, shapes, shapes.chunk, embedding).program()


def decode_program(
    checkpoint: Checkpoint, shapes: StaticShapes, embedding: EmbeddingPrecision | None = None
) -> Program:
    """A program whose function takes one token; the arguments are those of `prefill_program`.

    Raises:
        ExportError: a weight is too large for float16.
    """
    return _Decoder(checkpoint, shapes, 1, embedding).program()


class _Decoder:
    """Adds one model's ops to a function, top to bottom. `tokens` is T."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        shapes: StaticShapes,
        tokens: int,
        embedding: EmbeddingPrecision | None,
    ) -> None:
        self.config: ModelConfig = checkpoint.config
        self.weights = Weights(checkpoint, shapes)
        self.shapes = shapes
        self.tokens = tokens
        self.takes_embeddings = embedding is not None
        self.constants: dict[str, Var] = {}

    def program(self) -> Program:
        program = Program()
        with Function(self._inputs(), opset_version=OPSET) as function:
            self.inputs = function.inputs
            function.set_outputs([self._logits()])
        program.add_function("main", function)
        return program

    @property
    def decodes(self) -> bool:
        """Whether there is one token, and no padding."""
        return self.tokens == 1

    def _inputs(self) -> dict[str, Any]:
        config, shapes, tokens = self.config, self.shapes, self.tokens
        inputs = {"position": mb.TensorSpec((1,), dtype=types.int32)}
        if self.takes_embeddings:
            shape = (1, tokens, config.hidden_size)
            inputs = {"embeddings": mb.TensorSpec(shape, dtype=types.fp32), **inputs}
        else:
            inputs = {"input_ids": mb.TensorSpec((1, tokens), dtype=types.int32), **inputs}
        if not self.decodes:
            inputs["logits_index"] = mb.TensorSpec((1,), dtype=types.int32)
        cache = (config.num_key_value_heads, shapes.cache_tokens, shapes.head_size)
        for layer in range(config.num_hidden_layers):
            inputs[f"key_cache_{layer}"] = mb.StateTensorSpec(cache, dtype=types.fp16)
            inputs[f"value_cache_{layer}"] = mb.StateTensorSpec(cache, dtype=types.fp16)
            if not config.has_experts:
                continue
            rows = (tokens, config.num_experts)
            inputs[f"expert_values_{layer}"] = mb.TensorSpec(
                (*rows, config.hidden_size), dtype=types.fp16
            )
            if config.has_keys:
                width = config.expert_query_heads * config.expert_key_size
                inputs[f"expert_keys_{layer}"] = mb.TensorSpec((*rows, width), dtype=types.fp16)
                inputs |= ring_states(config, shapes, layer)
        return inputs

    def _logits(self) -> Var:
        config = self.config
        h = self._embedded()
        self._prepare_self_attention()
        if config.has_keys:
            ring = DecodeRing if self.decodes else PrefillRing
            self.ring = ring(config, self.shapes, self.inputs)
        for layer in range(config.num_hidden_layers):
            h = self._layer(layer, h)
        if not self.decodes:
            h = mb.gather(
                x=h,
                indices=self.inputs["logits_index"],
                axis=0,
                validate_indices=False,
                name="last_hidden_state",
            )
        x = self._norm(h, self.weights.tensor("model.norm.weight"), "final_norm")
        if config.tie_word_embeddings:
            head = self._embedding_matrix()
        else:
            head = self._constant("lm_head_matrix", self.weights.tensor("lm_head.weight"))
        logits = mb.linear(x=x, weight=head, name="head")
        logits = mb.expand_dims(x=logits, axes=[0], name="logits_float16")
        return mb.cast(x=logits, dtype="fp32", name="logits")

    def _embedded(self) -> Var:
        """[T, d], from the rows or from the function's own table."""
        if self.takes_embeddings:
            shape = [self.tokens, self.config.hidden_size]
            rows = mb.reshape(x=self.inputs["embeddings"], shape=shape, name="embedding_rows")
            return mb.cast(x=rows, dtype="fp16", name="embedded")  # exact: rows store float16
        ids = mb.reshape(x=self.inputs["input_ids"], shape=[self.tokens], name="token_ids")
        return mb.gather(
            x=self._embedding_matrix(), indices=ids, axis=0, validate_indices=False, name="embedded"
        )

    def _embedding_matrix(self) -> Var:
        return self._constant(
            "embed_tokens_matrix", self.weights.tensor("model.embed_tokens.weight")
        )

    def _layer(self, layer: int, h: Var) -> Var:
        name, prefix = f"layer_{layer}", f"model.layers.{layer}."
        weight = self.weights.tensor(f"{prefix}input_layernorm.weight")
        x = self._norm(h, weight, f"{name}_input_norm")
        h = mb.add(x=h, y=self._self_attention(layer, x), name=f"{name}_attended")
        weight = self.weights.tensor(f"{prefix}post_attention_layernorm.weight")
        x = self._norm(h, weight, f"{name}_post_attention_norm")
        y = mb.add(x=h, y=self._feed_forward(layer, x), name=f"{name}_fed_forward")
        if self.config.has_experts:
            mix = self._mix_window if self.config.has_keys else self._mix_own
            y = mb.add(x=y, y=mix(layer, x), name=f"{name}_output")
        return y

    def _prepare_self_attention(self) -> None:
        """What all layers share: the rotation of the new positions, and who sees whom."""
        position, half = self.inputs["position"], self.shapes.head_size // 2
        cosine, sine = (
            self._constant(name, table)
            for name, table in zip(
                ("rotary_cosine", "rotary_sine"), self.weights.rotary(), strict=True
            )
        )
        begin = mb.concat(values=[position, np.array([0], np.int32)], axis=0, name="rotary_begin")
        size = [self.tokens, half]
        self.cosine = mb.slice_by_size(x=cosine, begin=begin, size=size, name="cosine")
        self.sine = mb.slice_by_size(x=sine, begin=begin, size=size, name="sine")
        new = np.arange(self.tokens, dtype=np.int32)
        own = mb.add(x=position, y=new, name="positions")
        own = mb.expand_dims(x=own, axes=[1], name="positions_column")
        cached = np.arange(self.shapes.cache_tokens, dtype=np.int32)[None]
        seen = mb.less_equal(x=cached, y=own, name="seen")
        unseen = mb.cast(x=mb.logical_not(x=seen), dtype="fp16", name="unseen")
        mask = mb.mul(x=unseen, y=np.float16(MASKED), name="self_attention_mask")
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        if groups > 1:
            mask = mb.tile(x=mask, reps=[groups, 1], name="self_attention_mask_of_groups")
        self.mask = mask
        self.cache_begin = place(position, "cache_begin")
        end = mb.add(x=position, y=np.int32(self.tokens), name="next_position")
        heads, width = self.config.num_key_value_heads, self.shapes.head_size
        self.cache_end = place(end, "cache_end", heads, width)

    def _self_attention(self, layer: int, x: Var) -> Var:
        config, size, name = self.config, self.shapes.head_size, f"layer_{layer}_self_attention"
        queries, pairs = config.num_attention_heads, config.num_key_value_heads
        weight = self._constant(f"{name}_qkv_matrix", self.weights.qkv(layer))
        qkv = mb.linear(x=x, weight=weight, name=f"{name}_qkv")
        heads = [self.tokens, queries + 2 * pairs, size]
        qkv = mb.reshape(x=qkv, shape=heads, name=f"{name}_heads")
        qkv = mb.transpose(x=qkv, perm=[1, 0, 2], name=f"{name}_by_head")
        rotated, values = mb.split(
            x=qkv, split_sizes=[queries + pairs, pairs], axis=0, name=f"{name}_parts"
        )
        query, keys = mb.split(
            x=self._rotate(rotated, name), split_sizes=[queries, pairs], axis=0, name=f"{name}_qk"
        )
        keys = self._cached(f"key_cache_{layer}", keys)
        values = self._cached(f"value_cache_{layer}", values)
        group = [pairs, queries // pairs * self.tokens, size]
        query = mb.reshape(x=query, shape=group, name=f"{name}_query")
        scores = mb.matmul(x=query, y=keys, transpose_y=True, name=f"{name}_products")
        scores = mb.add(x=scores, y=self.mask, name=f"{name}_scores")
        weights = mb.softmax(x=scores, axis=-1, name=f"{name}_weights")
        mixed = mb.matmul(x=weights, y=values, name=f"{name}_mix")
        by_head = [queries, self.tokens, size]
        mixed = mb.reshape(x=mixed, shape=by_head, name=f"{name}_mix_by_head")
        mixed = mb.transpose(x=mixed, perm=[1, 0, 2], name=f"{name}_mix_by_token")
        mixed = mb.reshape(x=mixed, shape=[self.tokens, queries * size], name=f"{name}_mixed")
        weight = self._constant(f"{name}_output_matrix", self.weights.attention_output(layer))
        return mb.linear(x=mixed, weight=weight, name=f"{name}_output")

    def _cached(self, state: str, rows: Var) -> Var:
        return append(self.inputs[state], state, rows, self.cache_begin, self.cache_end)

    def _rotate(self, heads: Var, name: str) -> Var:
        first, second = mb.split(x=heads, num_splits=2, axis=-1, name=f"{name}_halves")
        turned = [
            mb.sub(x=mb.mul(x=first, y=self.cosine), y=mb.mul(x=second, y=self.sine)),
            mb.add(x=mb.mul(x=second, y=self.cosine), y=mb.mul(x=first, y=self.sine)),
        ]
        return mb.concat(values=turned, axis=-1, name=f"{name}_rotated")

    def _feed_forward(self, layer: int, x: Var) -> Var:
        name = f"layer_{layer}_mlp"

        def linear(value: Var, part: str) -> Var:
            weight = self._constant(f"{name}_{part}_matrix", self.weights.feed_forward(layer, part))
            return mb.linear(x=value, weight=weight, name=f"{name}_{part}")

        up = linear(x, "up_proj")
        if self.config.feed_forward == "swiglu":
            gate = mb.silu(x=linear(x, "gate_proj"), name=f"{name}_silu")
            inner = mb.mul(x=gate, y=up, name=f"{name}_gated")
        else:
            inner = mb.gelu(x=up, mode="EXACT", name=f"{name}_gelu")
        return linear(inner, "down_proj")

    def _mix_own(self, layer: int, x: Var) -> Var:
        """MoLE: the router's softmax over the experts of the token itself; nothing is kept."""
        name = f"layer_{layer}_experts"
        weight = self.weights.tensor(f"model.layers.{layer}.experts.router.weight")
        weight = self._constant(f"{name}_router_matrix", weight)
        scores = mb.linear(x=x, weight=weight, name=f"{name}_scores")
        return own_experts(scores, self.inputs[f"expert_values_{layer}"], name)

    def _mix_window(self, layer: int, x: Var) -> Var:
        """MoLKV: attention over the key-value experts of the last W tokens."""
        config, name = self.config, f"layer_{layer}_experts"
        prefix = f"model.layers.{layer}.experts."
        heads = config.expert_query_heads
        weight = self.weights.tensor(f"{prefix}query_proj.weight")
        weight = self._constant(f"{name}_query_proj_matrix", weight)
        query = mb.linear(x=x, weight=weight, name=f"{name}_query_flat")
        shape = [self.tokens, heads, config.expert_key_size]
        query = mb.reshape(x=query, shape=shape, name=f"{name}_query_heads")
        query = self._norm(query, self.weights.query_norm(layer), f"{name}_query_norm")
        planes: list[Var] = []
        for kind, size in (("key", self.shapes.key_size), ("value", self.shapes.value_size)):
            rows = self.inputs[f"expert_{kind}s_{layer}"]
            rows = rows_by_head(rows, heads, size, f"{name}_{kind}s")
            planes.append(self.ring.keep(f"{kind}_window_{layer}", rows))
        shared = config.expert_scoring != "key_age"
        table = self._constant(
            "no_age_bias" if shared else f"{name}_age_bias", self.weights.age_bias(layer)
        )
        mixed = expert_attention(query, planes[0], planes[1], table, self.ring.index, name)
        part = config.hidden_size // heads
        if self.shapes.value_size > part:
            mixed = mb.slice_by_size(
                x=mixed, begin=[0, 0, 0], size=[self.tokens, heads, part], name=f"{name}_unpadded"
            )
        return mb.reshape(x=mixed, shape=[self.tokens, config.hidden_size], name=f"{name}_output")

    def _norm(self, x: Var, weight: Float16, name: str) -> Var:
        """RMSNorm that squares numbers of at most 1: float16 ends at 65,504."""
        largest = mb.reduce_max(x=mb.abs(x=x), axes=[-1], keep_dims=True, name=f"{name}_largest")
        largest = mb.maximum(x=largest, y=np.float16(_SMALLEST), name=f"{name}_scale")
        scaled = mb.real_div(x=x, y=largest, name=f"{name}_scaled")
        squares = mb.mul(x=scaled, y=scaled, name=f"{name}_squares")
        mean = mb.reduce_mean(x=squares, axes=[-1], keep_dims=True, name=f"{name}_mean")
        root = np.float16(self.config.rms_norm_eps**0.5)
        epsilon = mb.real_div(x=root, y=largest, name=f"{name}_epsilon_root")
        epsilon = mb.mul(x=epsilon, y=epsilon, name=f"{name}_epsilon")
        mean = mb.add(x=mean, y=epsilon, name=f"{name}_mean_square")
        inverse = mb.rsqrt(x=mean, epsilon=np.float16(1e-7), name=f"{name}_inverse")
        normed = mb.mul(x=scaled, y=inverse, name=f"{name}_normed")
        return mb.mul(x=normed, y=self._constant(f"{name}_weight", weight), name=name)

    def _constant(self, name: str, value: Float16) -> Var:
        if name not in self.constants:
            self.constants[name] = mb.const(val=value, name=name)
        return self.constants[name]
