"""What an export will write and need, known before any work: ``molkv export --dry-run``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from molkv_export.blob_writer import blob_file_name
from molkv_export.errors import ExportError
from molkv_export.expert_blob import blob_headers, working_bytes
from molkv_export.graph_sizes import dense_names, graph_sizes
from molkv_export.model_card import CARD_FILE
from molkv_model.checkpoint import TOKENIZER_FILE, Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.blob_header import IDENTITY_SIZE
from molkv_runtime.golden import GOLDEN_FILE
from molkv_runtime.manifest import MANIFEST_FILE, DensePrecision
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import RowLayout

__all__ = ["ExportPlan", "make_plan", "require_exportable"]

_FLOAT_BYTES = 4
# Interpreter and libraries, measured where everything else is small: 310 MiB from Python, 20 more
# from the command line.
_BASE_BYTES = 330 << 20
# What the libraries of other backends add, measured the same way.
_BACKEND_BYTES = {"executorch": 210 << 20, "coreml": 260 << 20}
# Dense weights are in memory four times while the graph is loaded for the verdict: torch's, the
# engine's file, its packed copy, and one under way. A table that is only looked up is never packed.
_WEIGHT_COPIES = 4
_LOOKED_UP_COPIES = 2
# A block of logits with its copies in double precision (divergence.py).
_BLOCK_BYTES = 24 << 20
# What the tokenizers library needs for each byte of a tokenizer.json with 131,000 tokens.
_TOKENIZER_FACTOR = 8


@dataclass(frozen=True)
class ExportPlan:
    """Sizes of an export.

    Attributes:
        files: bytes of every file to be written, by name.
        estimated: names of those whose size is an estimate; the others are exact.
        bytes_per_token: read from storage for each new token.
        row_bytes: of those, the bytes that carry data.
        window_bytes: RAM of a full expert window of W rows.
        dense_parameters: of the dense graph.
        expert_parameters: values in the expert table.
        peak_memory_bytes: estimated; grows with the dense weights, not with the expert table.
    """

    files: dict[str, int]
    estimated: tuple[str, ...]
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


def require_exportable(config: ModelConfig) -> None:
    """Check that graphs and kernels know a model's way to mix its experts.

    Raises:
        ExportError: it is one of the variants that were only studied.
    """
    if config.studied:
        named = ", ".join(f"{name} {value}" for name, value in config.studied.items())
        raise ExportError(
            f"the model has {named}, which only the study of variants has",
            fix="export models with the expert_scoring key_age or key and nothing of these",
        )


def make_plan(
    checkpoint: Checkpoint,
    experts: ExpertPrecision,
    tokenizer: Path | None = None,
    *,
    precisions: Mapping[str, DensePrecision] | None = None,
    shard_size: int | None = None,
) -> ExportPlan:
    """Plan an export without reading a weight.

    Args:
        checkpoint: what to export.
        experts: precision of the expert rows.
        tokenizer: a ``tokenizer.json`` to use instead of the checkpoint's.
        precisions: of the dense graphs that will be written, by backend; None is ONNX's alone.
        shard_size: the most bytes of a file of the expert blob; None makes a single file.

    Raises:
        ExportError: `shard_size` is too small, or the model is a variant that was only studied.
    """
    config = checkpoint.config
    require_exportable(config)
    parameters = sum(checkpoint.size(name) for name in dense_names(checkpoint))
    headers = []
    if config.has_experts:
        headers = blob_headers(config, experts, bytes(IDENTITY_SIZE), shard_size)
    layout = headers[0].layout() if headers else None
    exact = {
        blob_file_name(header.shard_index, header.shard_count): header.file_size
        for header in headers
    }
    tokenizer = tokenizer or checkpoint.tokenizer_file
    if tokenizer is not None and tokenizer.is_file():
        exact[TOKENIZER_FILE] = tokenizer.stat().st_size
    precisions = precisions or {"onnx": "fp32"}
    graphs = graph_sizes(checkpoint, precisions)
    estimated = graphs | _estimated_files(config)
    return ExportPlan(
        files=exact | estimated,
        estimated=tuple(estimated),
        bytes_per_token=0 if layout is None else layout.row_stride,
        row_bytes=0 if layout is None else layout.row_size,
        window_bytes=0 if layout is None else config.expert_window * layout.row_size,
        dense_parameters=parameters,
        expert_parameters=_table_values(config),
        peak_memory_bytes=_BASE_BYTES
        + sum(_BACKEND_BYTES.get(backend, 0) for backend in precisions)
        + _TOKENIZER_FACTOR * exact.get(TOKENIZER_FILE, 0)
        + _verdict_bytes(checkpoint, layout),
    )


def _estimated_files(config: ModelConfig) -> dict[str, int]:
    """Sizes that depend on what the model says; all are close."""
    ids = min(config.max_position_embeddings, config.expert_window)
    return {
        GOLDEN_FILE: (24 << 10) + 16 * ids,
        CARD_FILE: 1 << 10,
        MANIFEST_FILE: 5 << 10,
    }


def _table_values(config: ModelConfig) -> int:
    keys = config.expert_query_heads * config.expert_key_size
    per_expert = config.hidden_size + keys
    return config.vocab_size * config.num_hidden_layers * config.num_experts * per_expert


def _verdict_bytes(checkpoint: Checkpoint, layout: RowLayout | None) -> int:
    """The verdict needs more than any pass before it: the weights twice over, and rows anew."""
    config = checkpoint.config
    sizes = {name: checkpoint.size(name) * _FLOAT_BYTES for name in checkpoint.names}
    looked_up = 0 if config.tie_word_embeddings else sizes["model.embed_tokens.weight"]
    weights = sum(sizes[name] for name in dense_names(checkpoint)) - looked_up
    networks = sum(sizes.values()) - looked_up - weights
    loading = _WEIGHT_COPIES * weights
    comparing_rows = (_WEIGHT_COPIES - 1) * weights + networks + _rows_bytes(config, layout)
    return _LOOKED_UP_COPIES * looked_up + max(loading, comparing_rows) + _BLOCK_BYTES


def _rows_bytes(config: ModelConfig, layout: RowLayout | None) -> int:
    return 0 if layout is None else working_bytes(config, layout, torch.get_num_threads())
