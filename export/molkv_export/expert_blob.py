"""The expert blob of a checkpoint: reparameterise, quantize, pack and write, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molkv_export.blob_writer import BlobWriter
from molkv_export.errors import ExportError
from molkv_export.quantize import key_precision, quantize
from molkv_export.reparameterize import ExpertTable, LayerExperts
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.errors import MolkvError
from molkv_runtime.row_geometry import EXPERT_TYPES, INT4_GROUP, ExpertPrecision, RowGeometry
from molkv_runtime.row_layout import LayerRows, RowLayout

__all__ = ["SLICE_ROWS", "pack_slice", "row_geometry", "slice_starts", "write_expert_blob"]

# Fixed, because the size of a matrix product may decide the last bit of its results.
SLICE_ROWS = 1024


def row_geometry(config: ModelConfig, experts: ExpertPrecision) -> RowGeometry:
    """The row geometry of a model's experts in a precision.

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
    )


def slice_starts(vocabulary_size: int) -> range:
    """First token ids of the slices that an export works through."""
    return range(0, vocabulary_size, SLICE_ROWS)


def pack_slice(
    table: ExpertTable, layout: RowLayout, start: int, experts: ExpertPrecision
) -> NDArray[np.uint8]:
    """The finished rows of the slice that starts at a token id: uint8 [rows, row_stride].

    Raises:
        ExportError: an expert cannot be represented in that precision.
    """
    stop = min(start + SLICE_ROWS, table.config.vocab_size)
    try:
        return layout.pack([_quantized(layer, experts) for layer in table.rows(start, stop)])
    except MolkvError as error:
        raise ExportError(
            f"{table.checkpoint.path}: token ids {start} to {stop - 1}: {error.problem}",
            fix=error.fix,
        ) from None


def write_expert_blob(
    checkpoint: Checkpoint,
    file: Path,
    experts: ExpertPrecision,
    identity: bytes,
    on_rows: Callable[[int], None] | None = None,
) -> BlobHeader:
    """Compute and write the whole blob; memory is the expert networks and one slice.

    Args:
        checkpoint: one with experts.
        file: where to write.
        experts: the rows' precision.
        identity: the checkpoint's.
        on_rows: called with the number of rows written since the last call.

    Returns:
        the header as written.

    Raises:
        ExportError: an expert is not finite or out of the precision's range, or the file cannot
            be written.
    """
    config = checkpoint.config
    header = BlobHeader.of(
        row_geometry(config, experts), vocabulary_size=config.vocab_size, identity=identity
    )
    layout = header.layout()
    table = ExpertTable(checkpoint)
    with BlobWriter(file, header) as writer:
        for start in slice_starts(config.vocab_size):
            rows = pack_slice(table, layout, start, experts)
            writer.write_rows(rows)
            if on_rows is not None:
                on_rows(len(rows))
    return header


def _quantized(layer: LayerExperts, experts: ExpertPrecision) -> LayerRows:
    values = quantize(layer.values, experts)
    keys = None if layer.keys is None else quantize(layer.keys, key_precision(experts))
    return LayerRows(
        keys=None if keys is None else keys.values,
        values=values.values,
        key_scales=None if keys is None else keys.scales,
        value_scales=values.scales,
    )
