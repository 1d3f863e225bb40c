"""Precision of the dense weights, through torchao, in the forms that XNNPACK runs."""

from __future__ import annotations

import torch
from torch import nn

from molkv_runtime.manifest import DensePrecision

__all__ = ["GROUP", "quantize"]

GROUP = 32
"""Weights of one int4 scale; XNNPACK takes multiples of 32."""


def quantize(model: nn.Module, precision: DensePrecision) -> None:
    """Quantize products and the embedding table in place.

    Products become int8 (a scale per output) or int4 (a scale per `GROUP` inputs) with activations
    in int8, one scale a token, chosen as it runs. A product whose width is no multiple of `GROUP`
    stays int8, and a MoLE router float32. The table is int8, a scale per row.

    Args:
        model: a step on float32 weights.
        precision: ``fp32`` changes nothing.
    """
    if precision == "fp32":
        return
    from torchao.quantization import (
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerAxis, PerGroup

    def is_product(module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear) and not name.endswith("router")

    def is_grouped(module: nn.Module, name: str) -> bool:
        return is_product(module, name) and getattr(module, "in_features", 1) % GROUP == 0

    def is_int8(module: nn.Module, name: str) -> bool:
        return is_product(module, name) and not (precision == "int4" and is_grouped(module, name))

    table = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    quantize_(model, table, lambda module, _: isinstance(module, nn.Embedding))
    per_output = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int8, weight_granularity=PerAxis(0)
    )
    quantize_(model, per_output, is_int8)
    if precision == "int4":
        grouped = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            weight_granularity=PerGroup(GROUP),
        )
        quantize_(model, grouped, is_grouped)
