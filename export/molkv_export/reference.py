"""The reference session: the torch dense graph on the bundle's own rows, read anew each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from molkv_export.cache_scales import CacheScales
from molkv_export.dense_graph import DenseGraph, ExpertPlanes
from molkv_export.expert_attention import reference_expert_attention
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.row_layout import LayerRows

__all__ = ["FinalStates", "ReferenceSession"]


@dataclass(frozen=True)
class FinalStates:
    """A sequence's way into the head: its logits are V / d times as large.

    With them the logits of a sequence can be had a few positions at a time, and without the rest of
    the model's weights.

    Attributes:
        states: float32 [T, d], the final norm included.
        head: float32 [V, d].
    """

    states: torch.Tensor
    head: torch.Tensor

    def logits_blocks(self, rows: int, *, first: int = 0) -> Iterator[NDArray[np.float32]]:
        """Logits of the positions from `first` on: float32 [C, V], C at most `rows`."""
        for place in range(first, len(self.states), rows):
            with torch.no_grad():
                block = self.states[place : place + rows] @ self.head.T
            logits: NDArray[np.float32] = block.numpy()
            yield logits


class ReferenceSession:
    """What every runtime is compared with: same rows, torch float32, no state but the ids.

    Args:
        checkpoint: the trained model.
        blob: its expert rows; None for a dense model.
        replaced: dense tensors to use instead of the checkpoint's, by name; with
            ``lm_head.weight``, a tied head is untied.
        cache_scales: of an int8 self-attention cache; None keeps it in float32.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        blob: Blob | None,
        replaced: Mapping[str, torch.Tensor] | None = None,
        cache_scales: CacheScales | None = None,
    ) -> None:
        self._graph = DenseGraph.from_checkpoint(
            checkpoint, reference_expert_attention, without=replaced or ()
        )
        self._graph.cache_scales = cache_scales
        if replaced:
            model = self._graph.model
            if (head := replaced.get("lm_head.weight")) is not None:
                vocabulary, width = head.shape
                model.lm_head = torch.nn.Linear(width, vocabulary, bias=False, device="meta")
            model.load_state_dict(replaced, assign=True, strict=False)
        self._window_size = checkpoint.config.expert_window
        self._blob = blob
        self._ids: list[int] = []

    def reset(self) -> None:
        """Start a new sequence."""
        self._ids = []

    def cache(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keys after rotation and values of the sequence so far, each float32 [L, K, T, h]."""
        length = len(self._ids)
        keys, values = self._graph.key_cache, self._graph.value_cache
        return keys[:, :, :length].numpy(), values[:, :, :length].numpy()

    def rewind(self, length: int) -> None:
        """Go back to the first tokens of the sequence."""
        del self._ids[length:]

    def run(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens; float32 [T, V], logits of every one of them."""
        (logits,) = self.run_blocks(token_ids, max(1, len(token_ids)))
        return logits

    def run_blocks(self, token_ids: Sequence[int], rows: int) -> Iterator[NDArray[np.float32]]:
        """Append tokens; yields the logits of every one of them, a few positions at a time.

        Args:
            token_ids: T of them.
            rows: positions in a block.

        Yields:
            float32 [C, V], C at most `rows`.
        """
        return self.final_states(token_ids).logits_blocks(rows)

    @torch.no_grad()
    def final_states(self, token_ids: Sequence[int]) -> FinalStates:
        """Append tokens; what their logits are made of."""
        position = len(self._ids)
        self._ids += token_ids
        window, embeddings = self._read(len(token_ids))
        hidden = self._graph.hidden_states(
            torch.tensor([list(token_ids)]),
            position,
            window,
            torch.zeros(1, dtype=torch.int64),
            embeddings,
        )
        return FinalStates(hidden[0], self._graph.model.head_weight.detach())

    def _read(self, new_tokens: int) -> tuple[list[ExpertPlanes], torch.Tensor | None]:
        """The window, and the new tokens' embeddings [1, T, d] if rows carry them."""
        if self._blob is None:
            return [], None
        batch = self._blob.read(self._ids[-(self._window_size - 1 + new_tokens) :])
        layers = self._blob.layout.sections(batch.rows)
        stored = self._blob.layout.embeddings(batch.rows)
        embeddings = None
        if stored is not None:
            rows = stored[batch.index[-new_tokens:]].astype(np.float32)
            embeddings = torch.from_numpy(rows)[None]
        return [_planes(layer, batch.index) for layer in layers], embeddings


def _planes(layer: LayerRows, index: NDArray[np.int64]) -> ExpertPlanes:
    def plane(name: str) -> torch.Tensor | None:
        section = getattr(layer, name)
        return None if section is None else torch.from_numpy(section[index])

    values = plane("values")
    assert values is not None  # noqa: S101 - every geometry has values; for the type checker
    return ExpertPlanes(plane("keys"), plane("key_scales"), values, plane("value_scales"))
