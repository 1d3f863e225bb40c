"""Trained experts whose keys and values are rounded as the rows of a blob would be."""

from __future__ import annotations

import torch
from torch import Tensor

from molkv_export.quantize import key_precision, quantize
from molkv_model.experts import LookupExperts
from molkv_model.modeling import LanguageModel
from molkv_runtime.dequantize import dequantize
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["round_experts"]


def round_experts(model: LanguageModel, precision: ExpertPrecision) -> None:
    """Let a model compute in float32 with experts rounded to a precision; its weights stay.

    Only the rows of the tokens that it is given are computed, so no blob is needed.

    Args:
        model: one with experts, trained or rounded before.
        precision: of the rows.
    """
    for layer in model.model.layers:
        trained = layer.experts
        assert isinstance(trained, LookupExperts)  # noqa: S101 - the caller's model has experts
        with torch.device("meta"):
            rounded = _RoundedExperts(trained, precision)
        rounded.load_state_dict(trained.state_dict(), assign=True)
        layer.experts = rounded.eval()


class _RoundedExperts(LookupExperts):
    def __init__(self, trained: LookupExperts, precision: ExpertPrecision) -> None:
        super().__init__(trained.config)
        self._precision = precision

    @torch.no_grad()
    def table(self, embeddings: Tensor) -> tuple[Tensor | None, Tensor]:
        """As that of the trained experts, quantized and back."""
        keys, values = super().table(embeddings)
        rounded = _rounded(values, self._precision)
        if keys is None:
            return None, rounded
        # A scale is that of all heads' keys together, as they lie in a row.
        flat = _rounded(keys.flatten(2), key_precision(self._precision))
        return torch.unflatten(flat, -1, keys.shape[2:]), rounded


def _rounded(vectors: Tensor, precision: ExpertPrecision) -> Tensor:
    stored = quantize(vectors.numpy(), precision)
    return torch.from_numpy(dequantize(stored.values, stored.scales))
