"""What an export will write and need, known before any work: ``molkv export --dry-run``."""

from __future__ import annotations

from dataclasses import dataclass

from molkv_export.dense_graph import is_expert_table_tensor
from molkv_export.expert_blob import SLICE_ROWS, row_geometry
from molkv_export.quantize import ExpertPrecision
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.row_layout import RowLayout

__all__ = ["ExportPlan", "make_plan"]

_FLOAT_BYTES = 4
_HEADER_BYTES = 16384
# Interpreter and libraries; measured on the tiny model, where everything else is small.
_BASE_BYTES = 420 << 20


@dataclass(frozen=True)
class ExportPlan:
    """Sizes of an export.

    Attributes:
        files: bytes of each large file to be written, by name.
        bytes_per_token: read from storage for each new token.
        row_bytes: of those, the bytes that carry data.
        window_bytes: RAM of a full expert window of W rows.
        dense_parameters: of the dense graph.
        expert_parameters: values in the expert table.
        peak_memory_bytes: estimated; does not depend on the vocabulary.
    """

    files: dict[str, int]
    bytes_per_token: int
    row_bytes: int
    window_bytes: int
    dense_parameters: int
    expert_parameters: int
    peak_memory_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def make_plan(checkpoint: Checkpoint, experts: ExpertPrecision) -> ExportPlan:
    """Plan an export without reading a weight."""
    config = checkpoint.config
    dense = network = 0
    for name in checkpoint.names:
        size = checkpoint.size(name)
        if is_expert_table_tensor(name):
            network += size
        else:
            dense += size
    files = {"dense.onnx.data": dense * _FLOAT_BYTES}
    layout = None
    if config.has_experts:
        layout = RowLayout.of(row_geometry(config, experts))
        files["experts.molkv"] = _HEADER_BYTES + config.vocab_size * layout.row_stride
    return ExportPlan(
        files=files,
        bytes_per_token=0 if layout is None else layout.row_stride,
        row_bytes=0 if layout is None else layout.row_size,
        window_bytes=0 if layout is None else config.expert_window * layout.row_size,
        dense_parameters=dense,
        expert_parameters=_table_values(config),
        peak_memory_bytes=_BASE_BYTES
        + (dense + network) * _FLOAT_BYTES
        + _slice_bytes(config, layout),
    )


def _table_values(config: ModelConfig) -> int:
    keys = config.expert_query_heads * config.expert_key_size
    per_expert = config.hidden_size + keys
    return config.vocab_size * config.num_hidden_layers * config.num_experts * per_expert


def _slice_bytes(config: ModelConfig, layout: RowLayout | None) -> int:
    """One slice: float32 vectors of every layer, one layer's hidden units twice, packed rows."""
    if layout is None:
        return 0
    rows = min(SLICE_ROWS, config.vocab_size)
    vectors = _table_values(config) // config.vocab_size * _FLOAT_BYTES
    hidden = 2 * config.num_experts * config.expert_intermediate_size * _FLOAT_BYTES
    return rows * (2 * vectors + hidden + layout.row_stride)
