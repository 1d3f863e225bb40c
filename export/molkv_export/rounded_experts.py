"""Trained experts whose keys and values are rounded, as a blob's rows would be or otherwise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molkv_export.quantize import key_precision, quantize
from molkv_model.experts import LookupExperts
from molkv_model.modeling import LanguageModel
from molkv_runtime.dequantize import dequantize
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["Rounding", "as_stored", "round_experts", "round_vectors"]

Rounding = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From vectors float32 [..., size] to what is left of them."""


def as_stored(precision: ExpertPrecision, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors float32 [..., size] quantized and back."""
    stored = quantize(vectors, precision)
    return dequantize(stored.values, stored.scales)


def round_experts(model: LanguageModel, precision: ExpertPrecision) -> None:
    """Let a model compute in float32 with experts rounded as rows of a precision are.

    Args:
        model: one with experts, trained or rounded before; its weights stay.
        precision: of the rows.
    """
    keys = partial(as_stored, key_precision(precision))
    round_vectors(model, keys, partial(as_stored, precision))


def round_vectors(model: LanguageModel, keys: Rounding, values: Rounding) -> None:
    """The same with any rounding. Only the rows of the tokens that it is given are computed.

    Args:
        model: as above.
        keys: of keys [..., heads · dk]: all heads share a scale, as they lie in a row.
        values: of values [..., d].
    """
    for layer in model.model.layers:
        trained = layer.experts
        assert isinstance(trained, LookupExperts)  # noqa: S101 - the caller's model has experts
        with torch.device("meta"):
            rounded = _RoundedExperts(trained, keys, values)
        rounded.load_state_dict(trained.state_dict(), assign=True)
        layer.experts = rounded.eval()


class _RoundedExperts(LookupExperts):
    def __init__(self, trained: LookupExperts, keys: Rounding, values: Rounding) -> None:
        super().__init__(trained.config)
        self._keys = keys
        self._values = values

    @torch.no_grad()
    def table(self, embeddings: Tensor) -> tuple[Tensor | None, Tensor]:
        """As that of the trained experts, rounded."""
        keys, values = super().table(embeddings)
        rounded = torch.from_numpy(self._values(values.numpy()))
        if keys is None:
            return None, rounded
        flat = torch.from_numpy(self._keys(keys.flatten(2).numpy()))
        return torch.unflatten(flat, -1, keys.shape[2:]), rounded
