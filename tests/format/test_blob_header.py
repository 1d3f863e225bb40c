"""The header page holds what docs/format.md "Header" says, byte by byte."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molkv_runtime.blob_header import HEADER_SIZE, BlobHeader
from molkv_runtime.errors import BlobFormatError
from molkv_runtime.row_layout import DataType, RowGeometry, crc32c
from tests.attacks.blob_files import FIELDS
from tests.format.strategies import EMBEDDED, IDENTITY, SMALL, geometries

SCHEMA = Path(__file__).parents[2] / "docs" / "blob-header.schema.json"


@st.composite
def headers(draw: st.DrawFn) -> BlobHeader:
    shard_count = draw(st.integers(1, 5))
    shard_index = draw(st.integers(0, shard_count - 1))
    lengths = draw(st.lists(st.integers(1, 10**6), min_size=shard_count, max_size=shard_count))
    return BlobHeader.of(
        draw(geometries()),
        vocabulary_size=sum(lengths),
        identity=draw(st.binary(min_size=32, max_size=32)),
        first_row=sum(lengths[:shard_index]),
        row_count=lengths[shard_index],
        shard_index=shard_index,
        shard_count=shard_count,
    )


@given(headers())
@settings(max_examples=100, deadline=None)
def test_unpacking_what_was_packed_gives_the_same_header(header: BlobHeader) -> None:
    page = header.pack()
    assert len(page) == HEADER_SIZE
    assert BlobHeader.unpack(page, "experts.molkv") == header


@given(headers())
@settings(max_examples=50, deadline=None)
def test_the_json_form_follows_its_schema(header: BlobHeader) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(json.dumps(header.to_json()))
    jsonschema.validate(document, schema)
    assert set(document) == set(schema["required"]) == set(schema["properties"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", 0),
        ("row_count", -1),
        ("key_dtype", "int4"),
        ("version", "1.3"),
        ("embedding_dtype", "int8"),
        ("identity", "00"),
        ("extra", 1),
    ],
)
def test_the_schema_refuses_what_the_format_refuses(field: str, value: object) -> None:
    header = BlobHeader.of(SMALL, vocabulary_size=4, identity=IDENTITY)
    document = {**header.to_json(), field: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA.read_text()))


def test_every_field_is_at_its_byte_position() -> None:
    header = BlobHeader.of(
        SMALL,
        vocabulary_size=40,
        identity=IDENTITY,
        first_row=10,
        row_count=20,
        shard_index=1,
        shard_count=3,
    )
    page = header.pack()
    known = {**dataclasses.asdict(SMALL), **dataclasses.asdict(header)}
    known |= {"header_size": 16384, "flags": 0, "reserved": 0}
    for field, (offset, code) in FIELDS.items():
        assert struct.unpack_from(code, page, offset)[0] == known[field], field
    assert page[:8] == b"\x89MOLKV\r\n"
    assert page[112:144] == IDENTITY
    assert not any(page[146:16380])
    assert struct.unpack("<I", page[16380:])[0] == crc32c(page[:16380])


@given(st.integers(0, HEADER_SIZE - 1), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_any_flipped_bit_of_the_header_is_refused(position: int, bit: int) -> None:
    page = bytearray(BlobHeader.of(SMALL, vocabulary_size=4, identity=IDENTITY).pack())
    page[position] ^= 1 << bit
    with pytest.raises(BlobFormatError, match=r"^experts\.molkv: "):
        BlobHeader.unpack(bytes(page), "experts.molkv")


@given(st.binary(max_size=160), st.booleans())
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_and_never_crash(content: bytes, disguised: bool) -> None:
    page = bytearray(content.ljust(HEADER_SIZE, b"\0"))
    if disguised:
        page[:16] = b"\x89MOLKV\r\n" + struct.pack("<HHI", 1, 0, HEADER_SIZE)
        page[16380:] = struct.pack("<I", crc32c(bytes(page[:16380])))
    with pytest.raises(BlobFormatError):
        BlobHeader.unpack(bytes(page), "experts.molkv")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocabulary_size", 0),
        ("vocabulary_size", 2**31),
        ("row_count", 5),
        ("identity", b"short"),
        ("row_size", 80),
        ("row_stride", 76),
        ("data_offset", 100),
        ("version_major", 2),
    ],
)
def test_a_header_that_readers_would_refuse_is_never_written(field: str, value: object) -> None:
    header = BlobHeader.of(SMALL, vocabulary_size=4, identity=IDENTITY)
    with pytest.raises(BlobFormatError):
        dataclasses.replace(header, **{field: value}).pack()  # type: ignore[arg-type]


def int4_geometry(**changes: int) -> RowGeometry:
    sizes = {"layers": 1, "experts": 2, "key_heads": 2, "key_size": 3, "value_size": 128}
    return RowGeometry.of(DataType.INT4, **(sizes | changes))


def test_a_file_is_of_the_first_version_that_has_what_it_holds() -> None:
    embedded_int4 = dataclasses.replace(int4_geometry(), embedding_dtype=DataType.FLOAT16)
    for geometry, minor in (
        (SMALL, 0),
        (int4_geometry(), 1),
        (EMBEDDED, 2),
        (embedded_int4, 2),
    ):
        header = BlobHeader.of(geometry, vocabulary_size=4, identity=IDENTITY)
        assert header.version_minor == minor
        for other in {0, 1, 2} - {minor}:
            changed = dataclasses.replace(header, version_minor=other)
            with pytest.raises(BlobFormatError, match=f"version_minor is {other}, but must be"):
                changed.pack()


@pytest.mark.parametrize("dtype", [DataType.FLOAT32, DataType.INT8, DataType.INT4])
def test_an_embedding_is_float16(dtype: DataType) -> None:
    geometry = dataclasses.replace(SMALL, embedding_dtype=dtype)
    with pytest.raises(BlobFormatError, match=f"embedding_dtype is {dtype.value}, but must be 0"):
        geometry.validate("experts.molkv")


def test_int4_values_have_int8_keys_and_a_half_for_each_group_of_32() -> None:
    geometry = int4_geometry()
    assert geometry.key_dtype is DataType.INT8
    assert geometry.key_group_size == 6
    assert geometry.scale_dtype is DataType.FLOAT16
    assert geometry.value_group_size == 32
    assert int4_geometry(key_heads=0, key_size=0).key_dtype is DataType.NONE


@pytest.mark.parametrize(
    ("key_heads", "value_size", "multiple"), [(2, 96, 64), (2, 33, 64), (0, 48, 32), (1, 31, 32)]
)
def test_a_group_of_int4_never_spans_two_heads(
    key_heads: int, value_size: int, multiple: int
) -> None:
    message = f"value_size is {value_size}, but int4 values must be a multiple of {multiple} .*int8"
    with pytest.raises(BlobFormatError, match=message):
        int4_geometry(key_heads=key_heads, key_size=3 * bool(key_heads), value_size=value_size)
