"""Rungs 1 and 2 of the parity ladder: the expert rows of a bundle, whatever its graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from molkv_export.expert_blob import expert_slices
from molkv_export.expert_pipeline import ExpertPipeline
from molkv_export.golden import dequantized_digest, row_digest
from molkv_export.reparameterize import ExpertTable
from molkv_export.rungs import at_most
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.manifest import RungEntry
from molkv_runtime.native import NativeBlob

__all__ = ["climb_rows"]


def climb_rows(bundle: Bundle, checkpoint: Checkpoint | None) -> Iterator[RungEntry]:
    """Climb both rungs; none without experts.

    Args:
        bundle: an open bundle.
        checkpoint: where it came from; with it, rows are computed anew.

    Raises:
        BlobFormatError: the blob breaks its format.
        BundleError: it is another checkpoint's.
        RowCorruptError: a row does not match its checksum.
    """
    blob = bundle.open_experts()
    if blob is None:
        return
    try:
        rows = bundle.load_golden().rows
        batch = blob.read([row.token_id for row in rows])
        read = [batch.rows[place] for place in batch.index]
        pairs = list(zip(rows, read, strict=True))
        changed = sum(row_digest(blob, data) != row.bytes_sha256 for row, data in pairs)
        yield at_most("1 row bytes: golden = reader", changed, 0, f"{len(pairs)} rows")
        with NativeBlob(bundle.expert_files) as native:
            theirs = native.read([row.token_id for row in rows]).rows
        changed = int((theirs != batch.rows).any(axis=1).sum())
        yield at_most("1 row bytes: native = reader", changed, 0, f"{len(theirs)} rows")
        if checkpoint is not None:
            yield _recomputed_rows(bundle, blob, checkpoint)
        changed = sum(
            dequantized_digest(blob, data) != row.dequantized_sha256 for row, data in pairs
        )
        yield at_most("2 dequantized rows: golden = reader", changed, 0, f"{len(pairs)} rows")
    finally:
        blob.close()


def _recomputed_rows(bundle: Bundle, blob: Blob, checkpoint: Checkpoint) -> RungEntry:
    """Compute the first and the last slice anew; all rows would take as long as the export."""
    precision = bundle.manifest.quantization.experts
    assert precision is not None  # noqa: S101 - there is a blob; for the type checker
    every = expert_slices(checkpoint.config, blob.layout)
    slices = every[:1] + every[1:][-1:]
    pipeline = ExpertPipeline(ExpertTable(checkpoint), blob.layout, precision)
    changed = count = 0
    for ids, expected in zip(slices, pipeline.rows(slices), strict=True):
        stored = blob.read(np.arange(ids.start, ids.stop)).rows
        changed += int((expected != stored).any(axis=1).sum())
        count += len(expected)
    return at_most("1 row bytes: writer = reader", changed, 0, f"{count} rows")
