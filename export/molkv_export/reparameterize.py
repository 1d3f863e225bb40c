"""Reparameterisation: trained experts become constants, a slice of the vocabulary at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from molkv_model.checkpoint import Checkpoint
from molkv_model.experts import LookupExperts

__all__ = ["ExpertTable", "LayerExperts"]


@dataclass(frozen=True)
class LayerExperts:
    """One layer's experts of a slice of the vocabulary.

    Attributes:
        keys: float32 [rows, N, G·dk], or None where experts have no keys (MoLE).
        values: float32 [rows, N, d].
    """

    keys: NDArray[np.float32] | None
    values: NDArray[np.float32]


class ExpertTable:
    """The expert table of a checkpoint, computed on demand.

    Holds the expert networks only; embedding rows are read from the checkpoint slice by slice, so
    memory does not grow with the vocabulary.

    Args:
        checkpoint: one with experts.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self._layers = [self._load_layer(n) for n in range(self.config.num_hidden_layers)]

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> list[LayerExperts]:
        """The experts of token ids [start, stop), layer by layer."""
        embeddings = self.checkpoint.rows("model.embed_tokens.weight", start, stop)
        return [self._compute(layer, embeddings) for layer in self._layers]

    def _load_layer(self, number: int) -> LookupExperts:
        with torch.device("meta"):
            layer = LookupExperts(self.config)
        prefix = f"model.layers.{number}.experts."
        names = [f"{prefix}{name}" for name in layer.state_dict()]
        tensors = {name.removeprefix(prefix): self.checkpoint.tensor(name) for name in names}
        layer.load_state_dict(tensors, assign=True)
        return layer.eval()

    def _compute(self, layer: LookupExperts, embeddings: torch.Tensor) -> LayerExperts:
        keys, values = layer.table(embeddings)
        return LayerExperts(
            keys=None if keys is None else keys.flatten(2).numpy(), values=values.numpy()
        )
