"""What an export will write and need, known before any work: ``molkv export --dry-run``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from molkv_export.blob_writer import blob_file_name
from molkv_export.embedding_place import EmbeddingPlace, stored_embedding
from molkv_export.errors import ExportError
from molkv_export.expert_blob import blob_headers
from molkv_export.graph_sizes import dense_names, graph_sizes
from molkv_export.memory_plan import peak_memory
from molkv_export.model_card import CARD_FILE
from molkv_model.checkpoint import TOKENIZER_FILE, Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.blob_header import IDENTITY_SIZE
from molkv_runtime.golden import GOLDEN_FILE
from molkv_runtime.manifest import MANIFEST_FILE, CachePrecision, DensePrecision
from molkv_runtime.row_geometry import DataType, ExpertPrecision
from molkv_runtime.row_layout import RowLayout

__all__ = ["ExportPlan", "make_plan", "require_exportable"]


@dataclass(frozen=True)
class ExportPlan:
    """Sizes of an export.

    Attributes:
        files: bytes of every file to be written, by name.
        estimated: names of those whose size is an estimate; the others are exact.
        bytes_per_token: read from storage for each new token.
        row_bytes: of those, the bytes that carry data.
        embedding: where the input embedding goes, ``graph`` or ``storage``.
        embedding_bytes_per_token: of `bytes_per_token`, what the input embedding in the row adds; 0
            where the dense graphs have it.
        embedding_saved_bytes: by how much the embedding in the rows makes each backend's graph,
            and with it memory, smaller, by backend.
        window_bytes: RAM of a full expert window of W rows.
        dense_parameters: of the dense graph.
        expert_parameters: values in the expert table.
        peak_memory_bytes: estimated; grows with the dense weights, not with the expert table.
    """

    files: dict[str, int]
    estimated: tuple[str, ...]
    bytes_per_token: int
    embedding: EmbeddingPlace
    embedding_bytes_per_token: int
    embedding_saved_bytes: dict[str, int]
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
    caches: Mapping[str, CachePrecision] | None = None,
    shard_size: int | None = None,
    embedding: EmbeddingPlace = "graph",
) -> ExportPlan:
    """Plan an export without reading a weight.

    Args:
        checkpoint: what to export.
        experts: precision of the expert rows.
        tokenizer: a ``tokenizer.json`` to use instead of the checkpoint's.
        precisions: of the dense graphs that will be written, by backend; None is ONNX's alone.
        caches: of their self-attention caches, by backend; None is float32 throughout.
        shard_size: the most bytes of a file of the expert blob; None makes a single file.
        embedding: where the input embedding goes.

    Raises:
        ExportError: `shard_size` is too small, the embedding cannot be where it is to go, or the
            model is a variant that was only studied.
    """
    config = checkpoint.config
    require_exportable(config)
    stored = stored_embedding(config, embedding)
    parameters = sum(checkpoint.size(name) for name in dense_names(checkpoint, embedding))
    headers = []
    if config.has_experts:
        headers = blob_headers(config, experts, bytes(IDENTITY_SIZE), shard_size, stored)
    layout = headers[0].layout() if headers else None
    exact = {
        blob_file_name(header.shard_index, header.shard_count): header.file_size
        for header in headers
    }
    tokenizer = tokenizer or checkpoint.tokenizer_file
    if tokenizer is not None and tokenizer.is_file():
        exact[TOKENIZER_FILE] = tokenizer.stat().st_size
    precisions = precisions or {"onnx": "fp32"}
    graphs = graph_sizes(checkpoint, precisions, embedding)
    estimated = graphs | _estimated_files(config)
    return ExportPlan(
        files=exact | estimated,
        estimated=tuple(estimated),
        bytes_per_token=0 if layout is None else layout.row_stride,
        embedding=embedding,
        embedding_bytes_per_token=0 if layout is None else _added_bytes(layout),
        embedding_saved_bytes=_saved_bytes(checkpoint, precisions, embedding),
        row_bytes=0 if layout is None else layout.row_size,
        window_bytes=0 if layout is None else config.expert_window * _window_row_bytes(layout),
        dense_parameters=parameters,
        expert_parameters=_table_values(config),
        peak_memory_bytes=peak_memory(
            checkpoint, layout, precisions, caches or {}, embedding, exact.get(TOKENIZER_FILE, 0)
        ),
    )


def _added_bytes(layout: RowLayout) -> int:
    """What the embedding adds to a row, and so to a read."""
    geometry = dataclasses.replace(layout.geometry, embedding_dtype=DataType.NONE)
    return layout.row_stride - RowLayout.of(geometry).row_stride


def _window_row_bytes(layout: RowLayout) -> int:
    """The window keeps what a row has of experts."""
    geometry = dataclasses.replace(layout.geometry, embedding_dtype=DataType.NONE)
    return RowLayout.of(geometry).row_size


def _saved_bytes(
    checkpoint: Checkpoint, precisions: Mapping[str, DensePrecision], embedding: EmbeddingPlace
) -> dict[str, int]:
    saved = {}
    for backend, precision in precisions.items():
        with_table, left = (
            sum(graph_sizes(checkpoint, {backend: precision}, place).values())
            for place in ("graph", embedding)
        )
        saved[backend] = with_table - left
    return saved


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
