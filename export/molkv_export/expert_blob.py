"""The expert blob of a checkpoint: its rows computed, quantized, packed and written in slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from molkv_export.blob_files import BlobFiles
from molkv_export.blob_writer import shard_ranges
from molkv_export.errors import ExportError
from molkv_export.expert_pipeline import ExpertPipeline
from molkv_export.journal import Journal
from molkv_export.reparameterize import ExpertTable
from molkv_model.config import ModelConfig
from molkv_model.ranks import Ranks
from molkv_runtime.blob_header import HEADER_SIZE, MAXIMUM_SHARDS, BlobHeader
from molkv_runtime.manifest import EmbeddingPrecision
from molkv_runtime.row_geometry import (
    EXPERT_TYPES,
    INT4_GROUP,
    DataType,
    ExpertPrecision,
    RowGeometry,
)
from molkv_runtime.row_layout import RowLayout

__all__ = [
    "SLICE_BYTES",
    "SLICE_ROWS",
    "VECTOR_BYTES",
    "blob_headers",
    "expert_slices",
    "row_geometry",
    "share_of",
    "slice_rows",
    "working_bytes",
    "write_expert_blob",
]

SLICE_ROWS = 1024
"""The most token ids of a slice."""
SLICE_BYTES = 64 << 20
"""The most memory of a slice's packed rows, if it has more than one."""
VECTOR_BYTES = 32 << 20
"""The most memory of one expert's float32 vectors and hidden units for a slice, likewise."""
_FLOAT_BYTES = 4
# Two slices as quantized vectors, two as packed rows.
_SLICES_IN_MEMORY = 4


def row_geometry(
    config: ModelConfig, experts: ExpertPrecision, embedding: EmbeddingPrecision | None = None
) -> RowGeometry:
    """The row geometry of a model's experts in a precision.

    Args:
        config: a model with experts.
        experts: their precision.
        embedding: that of the input embedding in every row; None leaves it out.

    Raises:
        ExportError: values cannot be cut into groups of int4.
    """
    heads = config.expert_query_heads if config.has_keys else 1
    if experts == "int4" and config.hidden_size % (INT4_GROUP * heads):
        raise ExportError(
            f"hidden_size is {config.hidden_size}, but int4 experts need a multiple of "
            f"{INT4_GROUP * heads}: {INT4_GROUP} for each of the {heads} expert_query_heads",
            fix="export with int8 or f16 experts",
        )
    return RowGeometry.of(
        layers=config.num_hidden_layers,
        experts=config.num_experts,
        key_heads=config.expert_query_heads if config.has_keys else 0,
        key_size=config.expert_key_size,
        value_size=config.hidden_size,
        dtype=EXPERT_TYPES[experts],
        embedding_dtype=DataType.NONE if embedding is None else DataType.FLOAT16,
    )


def slice_rows(config: ModelConfig, layout: RowLayout) -> int:
    """Token ids of a slice: a power of two, as large as the limits allow.

    It follows from the model and the precision alone, because the size of a matrix product can
    decide the last bit of its results.
    """
    rows = SLICE_BYTES // layout.row_stride
    vectors = VECTOR_BYTES // _bytes_of_vectors(config, layout)
    most = min(SLICE_ROWS, rows, vectors)
    return 1 << max(0, most.bit_length() - 1)


def working_bytes(config: ModelConfig, layout: RowLayout, threads: int) -> int:
    """Memory that writing the blob takes, beside the checkpoint.

    Args:
        config: a model with experts.
        layout: of its rows.
        threads: that compute at the same time.
    """
    rows = min(slice_rows(config, layout), config.vocab_size)
    # The vectors of one expert more wait to be quantized.
    vectors = (threads + 1) * _bytes_of_vectors(config, layout)
    return rows * (_SLICES_IN_MEMORY * layout.row_stride + vectors)


def expert_slices(config: ModelConfig, layout: RowLayout) -> list[range]:
    """Token ids of the slices that an export works through."""
    rows, end = slice_rows(config, layout), config.vocab_size
    return [range(start, min(start + rows, end)) for start in range(0, end, rows)]


def blob_headers(
    config: ModelConfig,
    experts: ExpertPrecision,
    identity: bytes,
    shard_size: int | None = None,
    embedding: EmbeddingPrecision | None = None,
) -> list[BlobHeader]:
    """The headers of a blob's files.

    Args:
        config: a model with experts.
        experts: the rows' precision.
        identity: the checkpoint's.
        shard_size: the most bytes of a file; None makes a single one.
        embedding: precision of the input embedding in every row; None leaves it out.

    Raises:
        ExportError: a row does not fit into a shard, or there would be too many.
    """
    geometry = row_geometry(config, experts, embedding)
    stride = RowLayout.of(geometry).row_stride
    shards = 1
    if shard_size is not None:
        shards = -(-config.vocab_size // max(1, (shard_size - HEADER_SIZE) // stride))
        if shard_size < HEADER_SIZE + stride or shards > MAXIMUM_SHARDS:
            most_rows = -(-config.vocab_size // MAXIMUM_SHARDS)
            raise ExportError(
                f"shard_size is {shard_size:,} bytes, but a row has {stride:,} and a blob at most "
                f"{MAXIMUM_SHARDS:,} files",
                fix=f"choose at least {HEADER_SIZE + most_rows * stride:,}",
            )
    return [
        BlobHeader.of(
            geometry,
            vocabulary_size=config.vocab_size,
            identity=identity,
            first_row=ids.start,
            row_count=len(ids),
            shard_index=index,
            shard_count=shards,
        )
        for index, ids in enumerate(shard_ranges(config.vocab_size, shards))
    ]


def write_expert_blob(
    table: ExpertTable,
    files: BlobFiles,
    journal: Journal,
    experts: ExpertPrecision,
    slices: Sequence[range],
    on_slice: Callable[[range], None] | None = None,
) -> None:
    """Compute slices of the vocabulary and write them where they belong.

    While a slice is written, the next ones are computed. A slice is in the journal once it is on
    the storage.

    Args:
        table: the experts.
        files: the blob's, already made.
        journal: of this process.
        experts: the rows' precision.
        slices: those that are still to be done by this process, out of `expert_slices`.
        on_slice: called for each slice that is done.

    Raises:
        ExportError: an expert is not finite or out of the precision's range, or a file cannot be
            written.
    """

    def write(ids: range, rows: NDArray[np.uint8]) -> range:
        files.write(ids.start, rows)
        journal.record(ids)
        return ids

    pipeline = ExpertPipeline(table, files.layout, experts)
    with ThreadPoolExecutor(1, "write") as writer:
        writing: Future[range] | None = None
        for ids, rows in zip(slices, pipeline.rows(slices), strict=True):
            _await(writing, on_slice)
            writing = writer.submit(write, ids, rows)
            del rows  # else it would be kept until the next slice is there
        _await(writing, on_slice)


def _bytes_of_vectors(config: ModelConfig, layout: RowLayout) -> int:
    """Of one expert and one token id: hidden units before and after their function, vectors."""
    vectors = config.hidden_size + layout.geometry.key_width
    return _FLOAT_BYTES * 2 * (vectors + config.expert_intermediate_size)


def share_of(slices: Iterable[range], ranks: Ranks) -> list[range]:
    """The slices of this process: the ranks' shares are contiguous, and differ by one at most."""
    every = list(slices)
    first, end = (len(every) * rank // ranks.count for rank in (ranks.rank, ranks.rank + 1))
    return every[first:end]


def _await(writing: Future[range] | None, on_slice: Callable[[range], None] | None) -> None:
    if writing is not None:
        ids = writing.result()
        if on_slice is not None:
            on_slice(ids)
