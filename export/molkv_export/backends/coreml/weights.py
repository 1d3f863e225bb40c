"""Dense weights as Core ML takes them: float16, padded with zeros, constant factors folded in."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from molkv_export.backends.coreml.static_shapes import StaticShapes
from molkv_export.errors import ExportError
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_model.modeling import rotary_table

__all__ = ["MASKED", "Float16", "Weights"]

Float16 = NDArray[np.float16]

MASKED = -30000.0
"""Added to the score of what must not be attended; minus infinity would make NaN in float16."""


class Weights:
    """Reads a checkpoint's dense tensors one at a time.

    Args:
        checkpoint: the trained model.
        shapes: what to pad to.
    """

    def __init__(self, checkpoint: Checkpoint, shapes: StaticShapes) -> None:
        self.checkpoint = checkpoint
        self.shapes = shapes
        self.config: ModelConfig = checkpoint.config

    def tensor(self, name: str) -> Float16:
        """A tensor as it is.

        Raises:
            ExportError: a weight is too large for float16.
        """
        return self._half(name, self._array(name))

    def qkv(self, layer: int) -> Float16:
        """[(H + 2K) * head_size, d]: queries, keys and values in one product.

        A head's halves are padded each by itself, because the rotary embedding pairs them. The
        division of scores by sqrt(head_dim) is folded into the queries.
        """
        prefix = f"model.layers.{layer}.self_attn."
        scale = np.float32(1 / math.sqrt(self.config.head_dim))
        parts = [
            self._padded_heads(self._array(f"{prefix}q_proj.weight") * scale),
            self._padded_heads(self._array(f"{prefix}k_proj.weight")),
            self._padded_heads(self._array(f"{prefix}v_proj.weight")),
        ]
        return self._half(f"{prefix}qkv_proj.weight", np.concatenate(parts))

    def attention_output(self, layer: int) -> Float16:
        """[d, H * head_size]: `o_proj`, with zeros for the padded columns."""
        name = f"model.layers.{layer}.self_attn.o_proj.weight"
        return self._half(name, self._padded_heads(self._array(name).T).T)

    def feed_forward(self, layer: int, part: str) -> Float16:
        """`gate_proj` and `up_proj` [intermediate, d], `down_proj` [d, intermediate]."""
        name = f"model.layers.{layer}.mlp.{part}.weight"
        missing = self.shapes.intermediate_size - self.config.intermediate_size
        rows = (0, 0) if part == "down_proj" else (0, missing)
        columns = (0, missing) if part == "down_proj" else (0, 0)
        return self._half(name, np.pad(self._array(name), (rows, columns)))

    def query_norm(self, layer: int) -> Float16:
        """[dk]: the weight of the query's norm, with the division by sqrt(dk) folded in."""
        name = f"model.layers.{layer}.experts.query_norm.weight"
        return self._half(
            name, self._array(name) * np.float32(1 / math.sqrt(self.config.expert_key_size))
        )

    def age_bias(self, layer: int) -> Float16:
        """[W + 1, G * N]: by age; the last row masks what must not be attended."""
        config = self.config
        name = f"model.layers.{layer}.experts.age_bias"
        heads, count, window = (
            config.expert_query_heads,
            config.num_experts,
            config.expert_window,
        )
        bias = np.zeros((heads, count, window), np.float32)
        if config.expert_scoring == "key_age":
            bias = self._array(name)
        return self._half(name, age_table(bias))

    def rotary(self) -> tuple[Float16, Float16]:
        """Cosines and sines, each [cache_tokens, head_size / 2]; padding is zero."""
        missing = (
            self.shapes.cache_tokens - self.config.max_position_embeddings,
            (self.shapes.head_size - self.config.head_dim) // 2,
        )
        cosine, sine = (
            np.pad(table.numpy(), ((0, missing[0]), (0, missing[1]))).astype(np.float16)
            for table in rotary_table(self.config)
        )
        return cosine, sine

    def _padded_heads(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """[heads * head_dim, x] to [heads * head_size, x], each half of a head padded."""
        half = self.config.head_dim // 2
        halves = rows.reshape(-1, half, rows.shape[1])
        missing = self.shapes.head_size // 2 - half
        return np.pad(halves, ((0, 0), (0, missing), (0, 0))).reshape(-1, rows.shape[1])

    def _array(self, name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self.checkpoint.tensor(name).numpy()
        return array

    def _half(self, name: str, array: NDArray[np.float32]) -> Float16:
        largest = float(np.finfo(np.float16).max)
        if not (np.abs(array) <= largest).all():
            raise ExportError(
                f"{self.checkpoint.path}: {name} holds {float(np.abs(array).max())}, more than "
                f"float16's {largest:g}",
                fix="Core ML computes in float16; use the onnx backend, or scale the weights",
            )
        return np.ascontiguousarray(array, np.float16)


def age_table(bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """[G, N, W] to [W + 1, G * N], with a last row that masks."""
    by_age = bias.transpose(2, 0, 1).reshape(bias.shape[2], -1)
    masked = np.full((1, by_age.shape[1]), MASKED, np.float32)
    return np.concatenate([by_age, masked])
