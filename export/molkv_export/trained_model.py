"""The trained networks in torch, float32: what quantization is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from molkv_model.modeling import LanguageModel

__all__ = ["TrainedModel"]


class TrainedModel:
    """Predicts with the networks that were trained; no table, no rounding.

    Args:
        model: in eval mode.
        remember: keep the final hidden states of every sequence, so that the same sequence costs
            only the head's product a second time. Memory: d floats a position, where logits would
            take V.
    """

    def __init__(self, model: LanguageModel, *, remember: bool = False) -> None:
        self.model = model
        self._remembered: dict[bytes, Tensor] | None = {} if remember else None

    @torch.no_grad()
    def __call__(self, ids: NDArray[np.int64], rows: int) -> Iterator[NDArray[np.float32]]:
        """Logits of a new sequence.

        Args:
            ids: int64 [T].
            rows: positions in a block.

        Yields:
            float32 [rows, V], the last perhaps shorter.
        """
        hidden = self._hidden_states(ids)
        for first in range(0, len(ids), rows):
            block = functional.linear(hidden[first : first + rows], self.model.head_weight)
            yield block.numpy()

    def _hidden_states(self, ids: NDArray[np.int64]) -> Tensor:
        """After the final norm: float32 [T, d]."""
        sequence = ids.tobytes()
        if self._remembered is None:
            return self._computed(ids)
        if sequence not in self._remembered:
            self._remembered[sequence] = self._computed(ids)
        return self._remembered[sequence]

    @torch.no_grad()
    def _computed(self, ids: NDArray[np.int64]) -> Tensor:
        return self.model.hidden_states(torch.from_numpy(ids)[None])[0]
