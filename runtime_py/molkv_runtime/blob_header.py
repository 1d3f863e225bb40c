"""The header page of an expert blob, docs/format.md "Header"."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from molkv_runtime.row_geometry import DataType, RowGeometry, format_error
from molkv_runtime.row_layout import RowLayout, crc32c

__all__ = ["HEADER_SIZE", "MAGIC", "BlobHeader", "DataType", "RowGeometry"]

MAGIC: Final = b"\x89MOLKV\r\n"
VERSION_MAJOR: Final = 1
VERSION_MINOR: Final = 2
HEADER_SIZE: Final = 16384
DATA_ALIGNMENT: Final = 16384
MAXIMUM_DATA_OFFSET: Final = 2**20
MAXIMUM_ROWS: Final = 2**31 - 1
MAXIMUM_SHARDS: Final = 99_999
IDENTITY_SIZE: Final = 32

_PREFIX: Final = struct.Struct("<8sHHI")
_FIELDS: Final = struct.Struct("<8sHHI6Q7I4H3I32sH")
_CHECKSUM: Final = struct.Struct("<I")
_CHECKSUM_OFFSET: Final = HEADER_SIZE - _CHECKSUM.size


@dataclass(frozen=True)
class BlobHeader:
    """What the header page of one file states.

    Attributes:
        geometry: what a row holds.
        vocabulary_size: rows over all shards; token ids are 0 to vocabulary_size - 1.
        identity: 32 bytes, the SHA-256 over the checkpoint's weights.
        row_size: bytes of a row that carry data, its CRC32C included.
        row_stride: bytes from one row to the next.
        first_row: token id of this file's first row.
        row_count: rows in this file.
        shard_index: which shard this file is, from 0.
        shard_count: files that make up the blob.
        data_offset: byte position of the first row.
        version_major: a reader refuses any other than its own.
        version_minor: a reader refuses any above its own; the least that has what a row holds.
    """

    geometry: RowGeometry
    vocabulary_size: int
    identity: bytes
    row_size: int
    row_stride: int
    first_row: int
    row_count: int
    shard_index: int = 0
    shard_count: int = 1
    data_offset: int = HEADER_SIZE
    version_major: int = VERSION_MAJOR
    version_minor: int = 0

    @classmethod
    def of(
        cls,
        geometry: RowGeometry,
        *,
        vocabulary_size: int,
        identity: bytes,
        first_row: int = 0,
        row_count: int | None = None,
        shard_index: int = 0,
        shard_count: int = 1,
    ) -> BlobHeader:
        """The header of a new file, row size and stride computed from the geometry.

        Args:
            geometry: what a row holds.
            vocabulary_size: rows over all shards.
            identity: 32 bytes.
            first_row: token id of the file's first row.
            row_count: rows in the file; by default all from `first_row` on.
            shard_index: which shard the file is, from 0.
            shard_count: files that make up the blob.

        Returns:
            A validated header.

        Raises:
            BlobFormatError: a value breaks a rule.
        """
        layout = RowLayout.of(geometry, source="new expert blob")
        header = cls(
            geometry=geometry,
            vocabulary_size=vocabulary_size,
            identity=identity,
            row_size=layout.row_size,
            row_stride=layout.row_stride,
            first_row=first_row,
            row_count=vocabulary_size - first_row if row_count is None else row_count,
            shard_index=shard_index,
            shard_count=shard_count,
            version_minor=_least_minor(geometry),
        )
        header.validate("new expert blob")
        return header

    @property
    def file_size(self) -> int:
        """Bytes of the whole file; below 2**58 for a validated header."""
        return self.data_offset + self.row_count * self.row_stride

    def layout(self, source: str = "expert blob") -> RowLayout:
        """The layout of this file's rows."""
        return RowLayout.of(self.geometry, self.row_stride, source=source)

    def validate(self, source: str) -> None:
        """Checks every rule that can be checked without the file's length.

        Args:
            source: the file's name, for messages.

        Raises:
            BlobFormatError: names the source, the field, its value and the rule it breaks.
        """
        _require_version(source, self.version_major, self.version_minor)
        ranges = (
            ("data_offset", HEADER_SIZE, MAXIMUM_DATA_OFFSET),
            ("vocabulary_size", 1, MAXIMUM_ROWS),
            ("first_row", 0, MAXIMUM_ROWS),
            ("row_count", 1, MAXIMUM_ROWS),
            ("shard_count", 1, MAXIMUM_SHARDS),
            ("shard_index", 0, self.shard_count - 1),
        )
        for field, least, most in ranges:
            value = getattr(self, field)
            if not least <= value <= most:
                raise format_error(source, field, value, f"must be {least} to {most}")
        if self.data_offset % DATA_ALIGNMENT:
            rule = f"must be a multiple of {DATA_ALIGNMENT}"
            raise format_error(source, "data_offset", self.data_offset, rule)
        if len(self.identity) != IDENTITY_SIZE:
            rule = f"must have {IDENTITY_SIZE} bytes"
            raise format_error(source, "identity", self.identity.hex(), rule)
        self._validate_row_range(source)
        least = _least_minor(self.geometry)
        if self.version_minor != least:
            rule = (
                f"must be {least} where value_dtype is {int(self.geometry.value_dtype)} and "
                f"embedding_dtype {int(self.geometry.embedding_dtype)}"
            )
            raise format_error(source, "version_minor", self.version_minor, rule)
        layout = self.layout(source)
        if self.row_size != layout.row_size:
            rule = f"the dimensions and types imply {layout.row_size}"
            raise format_error(source, "row_size", self.row_size, rule)

    def _validate_row_range(self, source: str) -> None:
        end = self.first_row + self.row_count
        if end > self.vocabulary_size:
            raise format_error(
                source,
                "row_count",
                self.row_count,
                f"first_row {self.first_row} + row_count must be at most "
                f"vocabulary_size {self.vocabulary_size}",
            )
        if (self.first_row == 0) != (self.shard_index == 0):
            rule = f"shard_index is {self.shard_index}: the first shard, and only it, starts at 0"
            raise format_error(source, "first_row", self.first_row, rule)
        if (end == self.vocabulary_size) != (self.shard_index == self.shard_count - 1):
            raise format_error(
                source,
                "row_count",
                self.row_count,
                f"the last shard, and only it, ends at vocabulary_size {self.vocabulary_size}; "
                f"this is shard {self.shard_index + 1} of {self.shard_count} and ends at {end}",
            )

    def pack(self) -> bytes:
        """The header page, 16384 bytes.

        Raises:
            BlobFormatError: a value breaks a rule.
        """
        self.validate("new expert blob")
        geometry = self.geometry
        page = bytearray(HEADER_SIZE)
        _FIELDS.pack_into(
            page,
            0,
            MAGIC,
            self.version_major,
            self.version_minor,
            HEADER_SIZE,
            self.data_offset,
            self.row_stride,
            self.row_size,
            self.vocabulary_size,
            self.first_row,
            self.row_count,
            self.shard_index,
            self.shard_count,
            geometry.layers,
            geometry.experts,
            geometry.key_heads,
            geometry.key_size,
            geometry.value_size,
            geometry.key_dtype,
            geometry.value_dtype,
            geometry.scale_dtype,
            0,
            geometry.key_group_size,
            geometry.value_group_size,
            0,
            self.identity,
            geometry.embedding_dtype,
        )
        _CHECKSUM.pack_into(page, _CHECKSUM_OFFSET, crc32c(bytes(page[:_CHECKSUM_OFFSET])))
        return bytes(page)

    @classmethod
    def unpack(cls, page: bytes, source: str) -> BlobHeader:
        """Reads and validates a header page.

        Args:
            page: the first bytes of the file; 16384 are needed.
            source: the file's name, for messages.

        Returns:
            The header.

        Raises:
            BlobFormatError: the page breaks a rule of docs/format.md.
        """
        if len(page) < HEADER_SIZE:
            rule = f"the header alone has {HEADER_SIZE}"
            raise format_error(source, "file length", len(page), rule)
        # Magic and version come before the checksum: a later version may place it elsewhere.
        magic, major, minor, header_size = _PREFIX.unpack_from(page)
        if magic != MAGIC:
            rule = f"an expert blob starts with {MAGIC.hex(' ')}"
            fix = "this is not an expert blob, or its transfer converted line ends"
            raise format_error(source, "magic", magic.hex(" "), rule, fix=fix)
        _require_version(source, major, minor)
        if header_size != HEADER_SIZE:
            raise format_error(source, "header_size", header_size, f"must be {HEADER_SIZE}")
        (stored,) = _CHECKSUM.unpack_from(page, _CHECKSUM_OFFSET)
        computed = crc32c(bytes(page[:_CHECKSUM_OFFSET]))
        if stored != computed:
            rule = f"the header's bytes give {computed:#010x}"
            raise format_error(source, "header CRC32C", f"{stored:#010x}", rule)
        if any(page[_FIELDS.size : _CHECKSUM_OFFSET]):
            position = next(i for i in range(_FIELDS.size, _CHECKSUM_OFFSET) if page[i])
            field = f"reserved byte {position}"
            raise format_error(source, field, page[position], "must be 0 in this version")
        return cls._from_fields(page, source)

    @classmethod
    def _from_fields(cls, page: bytes, source: str) -> BlobHeader:
        (
            _magic,
            major,
            minor,
            _header_size,
            data_offset,
            row_stride,
            row_size,
            vocabulary_size,
            first_row,
            row_count,
            shard_index,
            shard_count,
            layers,
            experts,
            key_heads,
            key_size,
            value_size,
            key_dtype,
            value_dtype,
            scale_dtype,
            flags,
            key_group_size,
            value_group_size,
            reserved,
            identity,
            embedding_dtype,
        ) = _FIELDS.unpack_from(page)
        for field, value in (("flags", flags), ("reserved field at byte 108", reserved)):
            if value:
                raise format_error(source, field, value, "must be 0 in this version")
        header = cls(
            geometry=RowGeometry(
                layers=layers,
                experts=experts,
                key_heads=key_heads,
                key_size=key_size,
                value_size=value_size,
                key_dtype=_data_type(source, "key_dtype", key_dtype),
                value_dtype=_data_type(source, "value_dtype", value_dtype),
                scale_dtype=_data_type(source, "scale_dtype", scale_dtype),
                key_group_size=key_group_size,
                value_group_size=value_group_size,
                embedding_dtype=_data_type(source, "embedding_dtype", embedding_dtype),
            ),
            vocabulary_size=vocabulary_size,
            identity=identity,
            row_size=row_size,
            row_stride=row_stride,
            first_row=first_row,
            row_count=row_count,
            shard_index=shard_index,
            shard_count=shard_count,
            data_offset=data_offset,
            version_major=major,
            version_minor=minor,
        )
        header.validate(source)
        return header

    def to_json(self) -> dict[str, Any]:
        """The header as JSON values, described by docs/blob-header.schema.json."""
        geometry = self.geometry
        return {
            "format": "molkv-expert-blob",
            "version": f"{self.version_major}.{self.version_minor}",
            "header_size": HEADER_SIZE,
            "data_offset": self.data_offset,
            "row_stride": self.row_stride,
            "row_size": self.row_size,
            "vocabulary_size": self.vocabulary_size,
            "first_row": self.first_row,
            "row_count": self.row_count,
            "shard_index": self.shard_index,
            "shard_count": self.shard_count,
            "layers": geometry.layers,
            "experts": geometry.experts,
            "key_heads": geometry.key_heads,
            "key_size": geometry.key_size,
            "value_size": geometry.value_size,
            "key_dtype": geometry.key_dtype.name.lower(),
            "value_dtype": geometry.value_dtype.name.lower(),
            "scale_dtype": geometry.scale_dtype.name.lower(),
            "key_group_size": geometry.key_group_size,
            "value_group_size": geometry.value_group_size,
            "embedding_dtype": geometry.embedding_dtype.name.lower(),
            "identity": self.identity.hex(),
        }


def _least_minor(geometry: RowGeometry) -> int:
    """A file states the first minor version that has what it holds: older readers take the rest."""
    if geometry.embedding_dtype is not DataType.NONE:
        return 2
    return 1 if geometry.value_dtype is DataType.INT4 else 0


def _require_version(source: str, major: int, minor: int) -> None:
    if major != VERSION_MAJOR or minor > VERSION_MINOR:
        raise format_error(
            source,
            "version",
            f"{major}.{minor}",
            f"this reader reads version {VERSION_MAJOR}.0 to {VERSION_MAJOR}.{VERSION_MINOR}",
            fix="update molkv, or export again with the version that is installed",
        )


def _data_type(source: str, field: str, code: int) -> DataType:
    try:
        return DataType(code)
    except ValueError:
        rule = f"the types are {', '.join(f'{known.value} {known.name}' for known in DataType)}"
        raise format_error(source, field, code, rule) from None
