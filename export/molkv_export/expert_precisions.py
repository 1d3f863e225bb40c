"""The precisions that a model's expert rows can have."""

from __future__ import annotations

from typing import get_args

from molkv_export.expert_blob import row_geometry
from molkv_model.config import ModelConfig
from molkv_runtime.errors import MolkvError
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import RowLayout

__all__ = ["row_bytes", "row_precisions"]


def row_precisions(config: ModelConfig) -> list[ExpertPrecision]:
    """Those that the model's dimensions allow, the smallest rows first.

    Args:
        config: of a model with experts.
    """
    possible: dict[ExpertPrecision, int] = {}
    for precision in get_args(ExpertPrecision):
        try:
            possible[precision] = row_bytes(config, precision)
        except MolkvError:
            continue  # its groups do not fit the model's width
    return sorted(possible, key=lambda precision: possible[precision])


def row_bytes(config: ModelConfig, precision: ExpertPrecision) -> int:
    """Bytes that one token's row takes on storage.

    Raises:
        MolkvError: the model's dimensions do not allow the precision.
    """
    return RowLayout.of(row_geometry(config, precision)).row_stride
