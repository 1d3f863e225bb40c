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
from tests.format.strategies import IDENTITY, SMALL, geometries

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
    [("layers", 0), ("row_count", -1), ("key_dtype", "int4"), ("identity", "00"), ("extra", 1)],
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
    assert not any(page[144:16380])
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


def test_int4_is_named_as_not_supported_yet() -> None:
    with pytest.raises(BlobFormatError, match="does not support it yet"):
        RowGeometry.of(DataType.INT4, layers=1, experts=1, key_heads=0, key_size=0, value_size=8)
