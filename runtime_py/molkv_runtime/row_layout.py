"""Where each number of an expert row lies: the only Python description of docs/format.md "Rows".

The writer packs rows and the reader views them through the same `RowLayout`, so the two cannot
drift apart. Nothing here touches files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import google_crc32c
import numpy as np

from molkv_runtime.row_geometry import DataType, RowGeometry, format_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["DataType", "LayerRows", "RowGeometry", "RowLayout", "Section", "crc32c"]

CHECKSUM_SIZE: Final = 4
SECTION_ALIGNMENT: Final = 4
CACHE_LINE: Final = 64
PAGE: Final = 4096
MAXIMUM_STRIDE: Final = 64 * 2**20
_EXACTLY: Final = "pass exactly the arrays that the row geometry states"

_NUMPY_TYPES: Final[dict[DataType, str]] = {
    DataType.FLOAT32: "<f4",
    DataType.FLOAT16: "<f2",
    DataType.INT8: "|i1",
    DataType.INT4: "|u1",  # two elements a byte
}


def crc32c(data: NDArray[np.uint8] | bytes) -> int:
    """CRC-32C (Castagnoli) of the bytes.

    Args:
        data: uint8 [length], contiguous, or bytes.

    Returns:
        The checksum, 0 to 2**32 - 1.
    """
    return int(google_crc32c.value(data))


def round_up(size: int, multiple: int) -> int:
    """The least multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def stride_alignment(row_size: int) -> int:
    """Bytes that the stride of rows of `row_size` bytes must be a multiple of."""
    return PAGE if row_size >= PAGE else CACHE_LINE


class Section(NamedTuple):
    """One array of a row.

    Attributes:
        name: field of `LayerRows`, or ``embedding``.
        offset: bytes from the start of the layer's part, or, for the embedding, of the row.
        size: bytes, padding not included.
        dtype: element type, little-endian.
        shape: shape of the array in one row.
    """

    name: str
    offset: int
    size: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LayerRows:
    """The experts of one layer for a batch of rows.

    Attributes:
        keys: int8 or float16 [rows, N, G*dk]; None when the model has no keys.
        values: int8 or float16 [rows, N, d], or int4 as uint8 [rows, N, d/2], two elements a byte
            (`molkv_runtime.dequantize` has them as numbers).
        key_scales: float32 [rows, N]; key = scale * int8. None without int8 keys.
        value_scales: float32 [rows, N], value = scale * int8; float16 [rows, N, d/32] for int4,
            one for each group of 32 elements. None for float16 values.
    """

    keys: NDArray[Any] | None
    values: NDArray[Any]
    key_scales: NDArray[np.float32] | None
    value_scales: NDArray[Any] | None


@dataclass(frozen=True)
class RowLayout:
    """Byte positions in a row (docs/format.md "Rows"). Build it with `RowLayout.of`.

    Every section is padded to 4 bytes, so all layers' parts have the same size and layer l starts
    at l * layer_size. The embedding, if there is one, follows the last layer.

    Attributes:
        geometry: what a row holds.
        layer_sections: the sections of every layer that are present, in file order.
        layer_size: bytes of one layer's part, padding included.
        embedding_section: the token's input embedding; None where rows carry none.
        row_size: bytes of a row that carry data, its CRC32C included.
        row_stride: bytes from one row to the next.
    """

    geometry: RowGeometry
    layer_sections: tuple[Section, ...]
    layer_size: int
    embedding_section: Section | None
    row_size: int
    row_stride: int

    @classmethod
    def of(
        cls, geometry: RowGeometry, row_stride: int | None = None, *, source: str = "row layout"
    ) -> RowLayout:
        """Lays out rows of a geometry.

        Args:
            geometry: what a row holds; validated here.
            row_stride: bytes from row to row; by default the least that the format allows.
            source: the file's name, for messages.

        Returns:
            The layout.

        Raises:
            BlobFormatError: the geometry or the stride breaks a rule.
        """
        geometry.validate(source)
        vectors, size = geometry.experts, geometry.value_size
        packed = geometry.value_dtype is DataType.INT4
        candidates: tuple[tuple[str, DataType, tuple[int, ...]], ...] = (
            ("keys", geometry.key_dtype, (vectors, geometry.key_width)),
            ("values", geometry.value_dtype, (vectors, size // 2 if packed else size)),
            ("key_scales", geometry.key_scale_dtype, (vectors,)),
            (
                "value_scales",
                geometry.scale_dtype,
                (vectors, size // geometry.value_group_size) if packed else (vectors,),
            ),
        )
        sections = []
        end = 0
        for name, code, shape in candidates:
            if code is DataType.NONE:
                continue
            dtype = np.dtype(_NUMPY_TYPES[code])
            count = 1
            for extent in shape:
                count *= extent
            sections.append(Section(name, end, count * dtype.itemsize, dtype, shape))
            end = round_up(end + count * dtype.itemsize, SECTION_ALIGNMENT)
        embedding = _embedding_section(geometry, geometry.layers * end)
        row_end = geometry.layers * end
        if embedding is not None:
            row_end = round_up(row_end + embedding.size, SECTION_ALIGNMENT)
        row_size = row_end + CHECKSUM_SIZE
        alignment = stride_alignment(row_size)
        stride = round_up(row_size, alignment) if row_stride is None else row_stride
        if stride < row_size:
            raise format_error(source, "row_stride", stride, f"a row has {row_size} bytes")
        if stride % alignment:
            rule = f"must be a multiple of {alignment} for rows of {row_size} bytes"
            raise format_error(source, "row_stride", stride, rule)
        if stride > MAXIMUM_STRIDE:
            raise format_error(source, "row_stride", stride, f"must be at most {MAXIMUM_STRIDE}")
        return cls(geometry, tuple(sections), end, embedding, row_size, stride)

    def section_offset(self, layer: int, name: str) -> int:
        """Byte position of a section from the start of the row.

        Args:
            layer: 0 to layers - 1.
            name: a field of `LayerRows`.

        Raises:
            KeyError: this geometry has no such section.
        """
        for section in self.layer_sections:
            if section.name == name:
                return layer * self.layer_size + section.offset
        raise KeyError(name)

    def pack(
        self, layers: Sequence[LayerRows], embeddings: NDArray[np.float16] | None = None
    ) -> NDArray[np.uint8]:
        """Writes a batch of rows with their checksums.

        Args:
            layers: one entry a layer, arrays of exactly the types and shapes of `LayerRows`.
            embeddings: float16 [rows, d] if rows carry them, else None.

        Returns:
            uint8 [rows, row_stride], padding zero.

        Raises:
            BlobFormatError: an array is missing, superfluous, or of another type or shape.
        """
        geometry = self.geometry
        if len(layers) != geometry.layers:
            rule = f"the geometry has {geometry.layers}"
            raise format_error("rows to pack", "number of layers", len(layers), rule, fix=_EXACTLY)
        rows = np.zeros((len(layers[0].values), self.row_stride), np.uint8)
        present = {section.name: section for section in self.layer_sections}
        for layer, arrays in enumerate(layers):
            for name in ("keys", "values", "key_scales", "value_scales"):
                array: NDArray[Any] | None = getattr(arrays, name)
                _put(
                    rows, layer * self.layer_size, present.get(name), array, f"layer {layer} {name}"
                )
        _put(rows, 0, self.embedding_section, embeddings, "embeddings")
        stored = self.stored_checksums(rows)
        for position, row in enumerate(rows):
            stored[position] = crc32c(row[: self.row_size - CHECKSUM_SIZE])
        return rows

    def sections(self, rows: NDArray[np.uint8]) -> tuple[LayerRows, ...]:
        """Views of every section of a batch of rows; nothing is copied.

        Args:
            rows: uint8 [rows, row_stride], last axis contiguous.

        Returns:
            One `LayerRows` a layer.

        Raises:
            BlobFormatError: the array is not a batch of rows of this layout.
        """
        self._require_rows(rows)
        layers = []
        for layer in range(self.geometry.layers):
            start = layer * self.layer_size
            views = {part.name: _view(rows, start, part) for part in self.layer_sections}
            layers.append(
                LayerRows(
                    keys=views.get("keys"),
                    values=views["values"],
                    key_scales=views.get("key_scales"),
                    value_scales=views.get("value_scales"),
                )
            )
        return tuple(layers)

    def embeddings(self, rows: NDArray[np.uint8]) -> NDArray[np.float16] | None:
        """A view of the input embeddings of a batch of rows; nothing is copied.

        Args:
            rows: uint8 [rows, row_stride], last axis contiguous.

        Returns:
            float16 [rows, d], or None where rows carry none.

        Raises:
            BlobFormatError: the array is not a batch of rows of this layout.
        """
        self._require_rows(rows)
        return None if self.embedding_section is None else _view(rows, 0, self.embedding_section)

    def stored_checksums(self, rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The CRC32C stored at the end of each row, as a view: uint32 [rows]."""
        self._require_rows(rows)
        return rows[:, self.row_size - CHECKSUM_SIZE : self.row_size].view("<u4")[:, 0]

    def check_crc(self, rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Compares each row's bytes with its stored checksum.

        Args:
            rows: uint8 [rows, row_stride].

        Returns:
            bool [rows], True where they agree.

        Raises:
            BlobFormatError: the array is not a batch of rows of this layout.
        """
        stored = self.stored_checksums(rows)
        covered = self.row_size - CHECKSUM_SIZE
        computed = np.fromiter((crc32c(row[:covered]) for row in rows), np.uint32, len(rows))
        return np.equal(computed, stored)

    def _require_rows(self, rows: NDArray[np.uint8]) -> None:
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self.row_stride:
            raise format_error(
                "rows",
                "array",
                f"{rows.dtype.name} {list(rows.shape)}",
                f"must be uint8 [rows, {self.row_stride}]",
                fix="pass whole rows, as Blob.read returns them",
            )


def _embedding_section(geometry: RowGeometry, offset: int) -> Section | None:
    if geometry.embedding_dtype is DataType.NONE:
        return None
    dtype, size = np.dtype(_NUMPY_TYPES[geometry.embedding_dtype]), geometry.value_size
    return Section("embedding", offset, size * dtype.itemsize, dtype, (size,))


def _view(rows: NDArray[np.uint8], start: int, section: Section) -> NDArray[Any]:
    """A section of every row; `start` is where its offset counts from."""
    start += section.offset
    flat = rows[:, start : start + section.size].view(section.dtype)
    # Splitting the last axis of a row slice never needs a copy, whatever the row stride.
    return flat.reshape(len(rows), *section.shape)


def _put(
    rows: NDArray[np.uint8],
    start: int,
    section: Section | None,
    array: NDArray[Any] | None,
    field: str,
) -> None:
    """Writes an array where its section is, after checking that it is what the section takes."""
    if array is None or section is None:
        if array is not None or section is not None:
            given = "absent" if array is None else "given"
            rule = "this geometry has " + ("none" if section is None else "them")
            raise format_error("rows to pack", field, given, rule, fix=_EXACTLY)
        return
    wanted = (len(rows), *section.shape)
    if array.dtype != section.dtype or array.shape != wanted:
        rule = f"must be {section.dtype.name} {list(wanted)}"
        given = f"{array.dtype.name} {list(array.shape)}"
        raise format_error("rows to pack", field, given, rule, fix=_EXACTLY)
    _view(rows, start, section)[...] = array
