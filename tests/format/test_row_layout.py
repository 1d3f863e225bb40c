"""Rows are laid out as docs/format.md "Rows" says, and views of them copy nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molkv_runtime.errors import BlobFormatError
from molkv_runtime.row_layout import DataType, LayerRows, RowGeometry, RowLayout, crc32c
from tests.format.strategies import (
    EMBEDDED,
    SMALL,
    geometries,
    random_embeddings,
    random_layers,
    random_rows,
)

NAMES = ("keys", "values", "key_scales", "value_scales")


def assert_same(left: LayerRows, right: LayerRows) -> None:
    for name in NAMES:
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()


@given(geometries(), st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_unpacking_what_was_packed_gives_the_same_bytes(
    geometry: RowGeometry, count: int, seed: int
) -> None:
    layout = RowLayout.of(geometry)
    layers = random_layers(geometry, count, seed)
    embeddings = random_embeddings(geometry, count, seed)
    rows = layout.pack(layers, embeddings)
    assert rows.shape == (count, layout.row_stride)
    assert layout.check_crc(rows).all()
    for packed, viewed in zip(layers, layout.sections(rows), strict=True):
        assert_same(packed, viewed)
    stored = layout.embeddings(rows)
    assert (stored is None) == (embeddings is None)
    if stored is not None and embeddings is not None:
        assert (stored.dtype, stored.shape) == (embeddings.dtype, embeddings.shape)
        assert stored.tobytes() == embeddings.tobytes()


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_sections_are_aligned_ordered_and_followed_by_checksum_and_zeros(
    geometry: RowGeometry,
) -> None:
    layout = RowLayout.of(geometry)
    end = 0
    for layer in range(geometry.layers):
        for section in layout.layer_sections:
            start = layout.section_offset(layer, section.name)
            assert start % 4 == 0
            assert end <= start < end + 4
            end = start + section.size
    if layout.embedding_section is not None:
        start = layout.embedding_section.offset
        assert start % 4 == 0
        assert end <= start < end + 4
        end = start + 2 * geometry.value_size
    assert layout.row_size == -(-end // 4) * 4 + 4
    multiple = 4096 if layout.row_size >= 4096 else 64
    assert layout.row_stride == -(-layout.row_size // multiple) * multiple
    row = random_rows(geometry, 1)[0]
    stored = int.from_bytes(row[layout.row_size - 4 : layout.row_size].tobytes(), "little")
    assert stored == crc32c(row[: layout.row_size - 4].tobytes())
    assert not row[layout.row_size :].any()


def test_byte_positions_are_the_ones_in_the_specification() -> None:
    layout = RowLayout.of(SMALL)
    offsets = [layout.section_offset(layer, name) for layer in range(2) for name in NAMES]
    assert offsets == [0, 8, 20, 28, 36, 44, 56, 64]
    assert (layout.row_size, layout.row_stride) == (76, 128)


def test_the_embedding_follows_the_last_layer_and_moves_nothing_else() -> None:
    layout = RowLayout.of(EMBEDDED)
    assert layout.layer_sections == RowLayout.of(SMALL).layer_sections
    assert layout.embedding_section is not None
    assert (layout.embedding_section.offset, layout.embedding_section.size) == (72, 12)
    assert layout.row_size == 72 + 12 + 4
    # The layers' bytes are those of rows without it.
    with_it = layout.pack(random_layers(EMBEDDED, 3, 5), random_embeddings(EMBEDDED, 3, 5))
    without = RowLayout.of(SMALL).pack(random_layers(SMALL, 3, 5))
    assert with_it[:, :72].tobytes() == without[:, :72].tobytes()


def test_the_checksum_covers_the_embedding() -> None:
    rows = random_rows(EMBEDDED, 2)
    layout = RowLayout.of(EMBEDDED)
    stored = layout.embeddings(rows)
    assert stored is not None
    assert np.shares_memory(stored, rows)
    rows[1, 72] ^= 1
    assert layout.check_crc(rows).tolist() == [True, False]


def test_packing_refuses_embeddings_that_are_missing_superfluous_or_do_not_fit() -> None:
    layers, layout = random_layers(SMALL, 2, 0), RowLayout.of(EMBEDDED)
    with pytest.raises(BlobFormatError, match="embeddings is absent, but this geometry has them"):
        layout.pack(layers)
    half = np.zeros((2, 6), np.float16)
    with pytest.raises(BlobFormatError, match="embeddings is given, but this geometry has none"):
        RowLayout.of(SMALL).pack(layers, half)
    for wrong in (half[:1], half[:, :5], half.astype(np.float32)):
        with pytest.raises(
            BlobFormatError, match=r"embeddings is float\d\d .*, but must be float16"
        ):
            layout.pack(layers, wrong)  # type: ignore[arg-type]


def test_a_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_model_without_keys_stores_values_only() -> None:
    geometry = RowGeometry.of(
        DataType.FLOAT16, layers=1, experts=3, key_heads=0, key_size=0, value_size=5
    )
    layout = RowLayout.of(geometry)
    assert [section.name for section in layout.layer_sections] == ["values"]
    assert layout.row_size == 32 + 4
    (layer,) = layout.sections(random_rows(geometry, 2))
    assert layer.keys is None
    assert layer.key_scales is None
    assert layer.value_scales is None
    with pytest.raises(KeyError):
        layout.section_offset(0, "keys")


def test_section_views_share_memory_with_the_rows() -> None:
    rows = random_rows(SMALL, 3)
    layout = RowLayout.of(SMALL)
    for layer in layout.sections(rows):
        for name in NAMES:
            assert np.shares_memory(getattr(layer, name), rows)
    layout.sections(rows)[1].values[2, 1, 5] += 1
    assert layout.check_crc(rows).tolist() == [True, True, False]


@given(st.integers(0, 75), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_any_flipped_bit_of_a_row_is_found(position: int, bit: int) -> None:
    rows = random_rows(SMALL, 2)
    rows[1, position] ^= 1 << bit
    assert RowLayout.of(SMALL).check_crc(rows).tolist() == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": None}, "layer 0 keys is absent"),
        ({"values": np.zeros((1, 2, 6), np.int16)}, r"int16 \[1, 2, 6\], but must be int8"),
        ({"values": np.zeros((1, 2, 7), np.int8)}, r"int8 \[1, 2, 7\], but must be int8"),
        ({"key_scales": np.zeros((2, 2), np.float32)}, r"float32 \[2, 2\], but must be"),
    ],
)
def test_packing_refuses_arrays_that_do_not_fit(change: dict[str, object], message: str) -> None:
    layers = random_layers(SMALL, 1, 0)
    layers[0] = dataclasses.replace(layers[0], **change)  # type: ignore[arg-type]
    with pytest.raises(BlobFormatError, match=message):
        RowLayout.of(SMALL).pack(layers)


def test_packing_refuses_another_number_of_layers_and_superfluous_arrays() -> None:
    layout = RowLayout.of(SMALL)
    with pytest.raises(BlobFormatError, match="number of layers is 1"):
        layout.pack(random_layers(SMALL, 1, 0)[:1])
    half = RowGeometry.of(
        DataType.FLOAT16, layers=1, experts=1, key_heads=0, key_size=0, value_size=2
    )
    layer = random_layers(half, 1, 0)[0]
    extra = dataclasses.replace(layer, value_scales=np.ones((1, 1), np.float32))
    with pytest.raises(BlobFormatError, match="value_scales is given, but this geometry has none"):
        RowLayout.of(half).pack([extra])


def test_views_of_an_array_that_is_no_batch_of_rows_are_refused() -> None:
    layout = RowLayout.of(SMALL)
    for wrong in (np.zeros((2, 127), np.uint8), np.zeros(128, np.uint8), np.zeros((2, 128), "i1")):
        with pytest.raises(BlobFormatError, match="array is"):
            layout.sections(wrong)


def test_a_larger_stride_of_the_right_multiple_is_allowed() -> None:
    assert RowLayout.of(SMALL, 192).row_stride == 192
    for stride in (64, 100, 2**26 + 64):
        with pytest.raises(BlobFormatError, match=f"row_stride is {stride}"):
            RowLayout.of(SMALL, stride)


def test_rows_of_exactly_4096_bytes_have_a_page_stride() -> None:
    def layout(value_size: int) -> RowLayout:
        geometry = RowGeometry.of(
            DataType.INT8, layers=1, experts=1, key_heads=0, key_size=0, value_size=value_size
        )
        return RowLayout.of(geometry)

    below, at, above = layout(4084), layout(4088), layout(4092)
    assert (below.row_size, below.row_stride) == (4092, 4096)
    assert (at.row_size, at.row_stride) == (4096, 4096)
    assert (above.row_size, above.row_stride) == (4100, 8192)
