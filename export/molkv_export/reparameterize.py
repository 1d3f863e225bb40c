"""Reparameterisation: trained experts become constants, an expert and a slice of ids at a time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from molkv_model.checkpoint import Checkpoint
from molkv_model.experts import LookupExperts

__all__ = ["ExpertTable", "ExpertVectors"]


@dataclass(frozen=True)
class ExpertVectors:
    """One expert of one layer, for a slice of the vocabulary.

    Attributes:
        keys: float32 [rows, G·dk], or None where experts have no keys (MoLE).
        values: float32 [rows, d].
    """

    keys: NDArray[np.float32] | None
    values: NDArray[np.float32]


class ExpertTable:
    """The expert table of a checkpoint, computed on demand.

    The expert networks are mapped from the checkpoint's files, and converted to float32 one at a
    time; embedding rows are read slice by slice. So memory is the checkpoint and one expert,
    whatever the vocabulary, the layers and the experts.

    Args:
        checkpoint: one with experts.
        device: where products are computed; by default the GPU if there is one.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | None = None) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._config_of_one = dataclasses.replace(self.config, num_experts=1)
        shared = ["norm.weight"]
        own = ["up_proj", "down_proj"]
        if self.config.has_keys:
            shared.append("key_norm.weight")
            own.append("key_proj")
        layers = range(self.config.num_hidden_layers)
        self._shared = [{name: self._stored(layer, name)[0] for name in shared} for layer in layers]
        self._own = [{name: self._stored(layer, name) for name in own} for layer in layers]

    def embeddings(self, start: int, stop: int) -> torch.Tensor:
        """The embedding rows of token ids [start, stop): float32 [rows, d].

        Raises:
            CheckpointError: the values are not finite.
        """
        rows = self.checkpoint.rows("model.embed_tokens.weight", start, stop)
        return rows.to(self.device)

    @torch.no_grad()
    def expert(self, layer: int, number: int, embeddings: torch.Tensor) -> ExpertVectors:
        """One expert's constants.

        Args:
            layer: 0 to layers - 1.
            number: 0 to N - 1.
            embeddings: float32 [rows, d], as `embeddings` gives them.
        """
        keys, values = self._network(layer, number).table(embeddings)
        return ExpertVectors(
            keys=None if keys is None else keys.flatten(1).cpu().numpy(),
            values=values[:, 0].cpu().numpy(),
        )

    def _network(self, layer: int, number: int) -> LookupExperts:
        """A layer's experts as if this one were the only one."""
        with torch.device("meta"):
            network = LookupExperts(self._config_of_one)
        own = {
            name: parts[0][number, None] if len(parts) == 1 else parts[number][None]
            for name, parts in self._own[layer].items()
        }
        weights = {
            name: value.to(self.device, torch.float32)
            for name, value in (self._shared[layer] | own).items()
        }
        # What mixes experts has no part in their table, and stays without values.
        network.load_state_dict(weights, assign=True, strict=False)
        return network.eval()

    def _stored(self, layer: int, name: str) -> list[torch.Tensor]:
        return self.checkpoint.mapped(f"model.layers.{layer}.experts.{name}")
