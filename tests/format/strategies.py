"""Random geometries and rows for the format tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from molkv_export.blob_writer import BlobWriter, blob_file_name, shard_ranges
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.row_layout import DataType, LayerRows, RowGeometry, RowLayout

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IDENTITY = bytes(range(100, 132))


@st.composite
def geometries(draw: st.DrawFn) -> RowGeometry:
    """Small geometries of every kind, some with rows above 4096 bytes."""
    key_heads = draw(st.integers(0, 3))
    dtype = draw(st.sampled_from([DataType.INT8, DataType.INT4, DataType.FLOAT16]))
    sizes = st.one_of(st.integers(1, 9), st.integers(1000, 1400))
    if dtype is DataType.INT4:  # whole groups for each head
        sizes = st.integers(1, 30).map(lambda groups: 32 * max(key_heads, 1) * groups)
    return RowGeometry.of(
        dtype,
        layers=draw(st.integers(1, 3)),
        experts=draw(st.integers(1, 4)),
        key_heads=key_heads,
        key_size=draw(st.integers(1, 5)) if key_heads else 0,
        value_size=draw(sizes),
        embedding_dtype=draw(st.sampled_from([DataType.NONE, DataType.FLOAT16])),
    )


def random_layers(geometry: RowGeometry, rows: int, seed: int) -> list[LayerRows]:
    """Arrays of a geometry with random bytes for contents, NaN payloads included."""
    generator = np.random.default_rng(seed)

    def random(dtype: DataType, shape: tuple[int, ...]) -> Any:
        if dtype is DataType.NONE:
            return None
        name = {
            DataType.INT8: "i1",
            DataType.INT4: "u1",
            DataType.FLOAT16: "<f2",
            DataType.FLOAT32: "<f4",
        }[dtype]
        size = int(np.prod(shape)) * np.dtype(name).itemsize
        return np.frombuffer(generator.bytes(size), name).reshape(shape)

    experts = (rows, geometry.experts)
    key_scales = DataType.FLOAT32 if geometry.key_dtype is DataType.INT8 else DataType.NONE
    packed = geometry.value_dtype is DataType.INT4
    value_size = geometry.value_size // 2 if packed else geometry.value_size
    groups = (geometry.value_size // 32,) if packed else ()
    return [
        LayerRows(
            keys=random(geometry.key_dtype, (*experts, geometry.key_width)),
            values=random(geometry.value_dtype, (*experts, value_size)),
            key_scales=random(key_scales, experts),
            value_scales=random(geometry.scale_dtype, (*experts, *groups)),
        )
        for _ in range(geometry.layers)
    ]


def random_embeddings(geometry: RowGeometry, rows: int, seed: int) -> NDArray[np.float16] | None:
    """Input embeddings of random bytes, if a geometry has them."""
    if geometry.embedding_dtype is DataType.NONE:
        return None
    content = np.random.default_rng(seed + 1).bytes(2 * rows * geometry.value_size)
    return np.frombuffer(content, "<f2").reshape(rows, geometry.value_size)


def random_rows(geometry: RowGeometry, rows: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [rows, row_stride] with valid checksums."""
    embeddings = random_embeddings(geometry, rows, seed)
    return RowLayout.of(geometry).pack(random_layers(geometry, rows, seed), embeddings)


def write_shards(
    folder: Path,
    geometry: RowGeometry,
    rows: NDArray[np.uint8],
    shard_count: int = 1,
    identity: bytes = IDENTITY,
) -> list[Path]:
    """Writes rows as a blob of some shards; returns their paths in order."""
    paths = []
    for shard_index, shard in enumerate(shard_ranges(len(rows), shard_count)):
        header = BlobHeader.of(
            geometry,
            vocabulary_size=len(rows),
            identity=identity,
            first_row=shard.start,
            row_count=len(shard),
            shard_index=shard_index,
            shard_count=shard_count,
        )
        paths.append(folder / blob_file_name(shard_index, shard_count))
        with BlobWriter(paths[-1], header) as writer:
            writer.write_rows(rows[shard.start : shard.stop], first_row=shard.start)
    return paths


SMALL_SIZES = {"layers": 2, "experts": 2, "key_heads": 1, "key_size": 3, "value_size": 6}
SMALL = RowGeometry.of(DataType.INT8, **SMALL_SIZES)
EMBEDDED = RowGeometry.of(DataType.INT8, **SMALL_SIZES, embedding_dtype=DataType.FLOAT16)
"""The same, and every row carries the token's input embedding."""
