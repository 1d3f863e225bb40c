"""Makes hostile expert blobs, each from a valid one by breaking one rule of docs/format.md.

Run `python tests/attacks/blob_files.py OUT_DIR` to write them all, beside the valid files and
an `expected.json` that says which error and which field each must be refused with.

Header fields are edited by byte position, from a table of this file's own, so that a slip in the
package's header code cannot hide itself here.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import google_crc32c
import numpy as np

from molkv_export.blob_writer import BlobWriter
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.row_layout import DataType, LayerRows, RowGeometry, RowLayout

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE: Final = 16384
ROWS: Final = 4
FIELDS: Final = {
    "version_major": (8, "<H"),
    "version_minor": (10, "<H"),
    "header_size": (12, "<I"),
    "data_offset": (16, "<Q"),
    "row_stride": (24, "<Q"),
    "row_size": (32, "<Q"),
    "vocabulary_size": (40, "<Q"),
    "first_row": (48, "<Q"),
    "row_count": (56, "<Q"),
    "shard_index": (64, "<I"),
    "shard_count": (68, "<I"),
    "layers": (72, "<I"),
    "experts": (76, "<I"),
    "key_heads": (80, "<I"),
    "key_size": (84, "<I"),
    "value_size": (88, "<I"),
    "key_dtype": (92, "<H"),
    "value_dtype": (94, "<H"),
    "scale_dtype": (96, "<H"),
    "flags": (98, "<H"),
    "key_group_size": (100, "<I"),
    "value_group_size": (104, "<I"),
    "reserved": (108, "<I"),
    "embedding_dtype": (144, "<H"),
}

INT4_FIELDS: Final = {"version_minor": 1, "value_dtype": 4, "value_size": 64}

FORMAT_ERROR: Final = "BlobFormatError"
ROW_ERROR: Final = "RowCorruptError"


@dataclass(frozen=True)
class Attack:
    """One hostile file.

    Attributes:
        name: file name without suffix.
        write: makes the file at a path.
        field: what the error message must name.
        error: class of the error, on opening or, for ROW_ERROR, on reading every row.
    """

    name: str
    write: Callable[[Path], None]
    field: str
    error: str = FORMAT_ERROR


def write_valid(path: Path, *, value_size: int = 6, embedded: bool = False) -> None:
    """A small valid int8 blob: 2 layers, 2 experts, keys, 4 rows of 128 bytes by default.

    With `embedded`, each row carries an input embedding, and still has 128 bytes.
    """
    geometry = RowGeometry.of(
        DataType.INT8,
        layers=2,
        experts=2,
        key_heads=1,
        key_size=3,
        value_size=value_size,
        embedding_dtype=DataType.FLOAT16 if embedded else DataType.NONE,
    )
    layout = RowLayout.of(geometry)
    generator = np.random.default_rng(7)
    layers = [
        LayerRows(
            keys=generator.integers(-127, 128, (ROWS, 2, 3), np.int8),
            values=generator.integers(-127, 128, (ROWS, 2, value_size), np.int8),
            key_scales=generator.random((ROWS, 2), np.float32),
            value_scales=generator.random((ROWS, 2), np.float32),
        )
        for _ in range(2)
    ]
    embeddings = None
    if embedded:
        embeddings = generator.standard_normal((ROWS, value_size)).astype(np.float16)
    header = BlobHeader.of(geometry, vocabulary_size=ROWS, identity=bytes(range(32)))
    with BlobWriter(path, header) as writer:
        writer.write_rows(layout.pack(layers, embeddings))


def valid_bytes(folder: Path, *, value_size: int = 6, embedded: bool = False) -> bytes:
    """The bytes of `write_valid`; `folder` is only used on the way."""
    path = folder / ".valid.molkv"
    write_valid(path, value_size=value_size, embedded=embedded)
    data = path.read_bytes()
    path.unlink()
    return data


def with_checksum(blob: bytes) -> bytes:
    """The blob with its header's CRC32C made right."""
    checksum = struct.pack("<I", google_crc32c.value(blob[: PAGE - 4]))
    return blob[: PAGE - 4] + checksum + blob[PAGE:]


def edited(blob: bytes, **fields: int) -> bytes:
    """The blob with header fields replaced and the header's CRC32C made right."""
    data = bytearray(blob)
    for name, value in fields.items():
        offset, code = FIELDS[name]
        struct.pack_into(code, data, offset, value)
    return with_checksum(bytes(data))


def flipped(blob: bytes, position: int) -> bytes:
    """The blob with one byte changed and nothing else."""
    return blob[:position] + bytes([blob[position] ^ 0x10]) + blob[position + 1 :]


def attacks(folder: Path) -> list[Attack]:
    """All hostile files; `folder` must exist, and nothing stays in it."""
    valid = valid_bytes(folder)
    large = valid_bytes(folder, value_size=3000)
    embedded = valid_bytes(folder, embedded=True)
    rows = valid[PAGE:]
    most = 2**32 - 1
    contents: dict[str, tuple[bytes, str]] = {
        "truncated-by-a-byte": (valid[:-1], "file length"),
        "truncated-in-header": (valid[:100], "file length"),
        "truncated-after-header": (valid[:PAGE], "file length"),
        "extended-by-a-byte": (valid + b"\0", "file length"),
        "empty": (b"", "file length"),
        "magic": (b"GGUF" + valid[4:], "magic"),
        "magic-with-line-ends-converted": (valid.replace(b"\r\n", b"\n"), "magic"),
        "future-major": (edited(valid, version_major=2), "version"),
        "future-minor": (edited(valid, version_minor=3), "version"),
        "minor-of-int4": (edited(valid, version_minor=1), "version_minor"),
        "minor-of-embeddings": (edited(valid, version_minor=2), "version_minor"),
        "embedding-in-an-older-minor": (edited(embedded, version_minor=0), "version_minor"),
        "embedding-that-rows-lack": (
            edited(valid, version_minor=2, embedding_dtype=2),
            "row_size",
        ),
        "embedding-that-the-header-hides": (
            edited(embedded, version_minor=0, embedding_dtype=0),
            "row_size",
        ),
        "embedding-of-int8": (edited(embedded, embedding_dtype=3), "embedding_dtype"),
        "embedding-of-unknown-type": (edited(embedded, embedding_dtype=99), "embedding_dtype"),
        "embedding-beyond-the-stride": (
            edited(embedded[: PAGE + 64 * ROWS], row_stride=64),
            "row_stride",
        ),
        "byte-behind-the-embedding-type": (
            with_checksum(flipped(embedded, 146)),
            "reserved byte 146",
        ),
        "past-major": (edited(valid, version_major=0), "version"),
        "header-size": (edited(valid, header_size=144), "header_size"),
        "header-byte-flipped": (flipped(valid, 120), "header CRC32C"),
        "header-checksum-flipped": (flipped(valid, PAGE - 1), "header CRC32C"),
        "layers-times-experts-overflows": (edited(valid, layers=most, experts=most), "layers"),
        "experts-overflow": (edited(valid, experts=most), "experts"),
        "key-heads-overflow": (edited(valid, key_heads=most, key_size=most), "key_heads"),
        "value-size-overflow": (edited(valid, value_size=most), "value_size"),
        "every-dimension-at-its-limit": (
            edited(
                valid,
                layers=1024,
                experts=4096,
                key_heads=1024,
                key_size=4096,
                value_size=131072,
                key_group_size=1024 * 4096,
                value_group_size=131072,
            ),
            "row_stride",
        ),
        "row-count-overflow": (edited(valid, row_count=2**63), "row_count"),
        "row-count-times-stride-is-zero-in-64-bits": (
            edited(valid, row_count=2**57, vocabulary_size=2**57)[:PAGE],
            "vocabulary_size",
        ),
        "row-stride-overflow": (edited(valid, row_stride=2**63), "row_stride"),
        "row-stride-above-limit": (edited(valid, row_stride=2**26 + 64), "row_stride"),
        "vocabulary-overflow": (edited(valid, vocabulary_size=2**64 - 1), "vocabulary_size"),
        "first-row-wraps": (edited(valid, first_row=2**64 - 3), "first_row"),
        "more-rows-than-file": (edited(valid, row_count=5, vocabulary_size=5), "file length"),
        "fewer-rows-than-file": (edited(valid, row_count=3, vocabulary_size=3), "file length"),
        "rows-beyond-vocabulary": (edited(valid, vocabulary_size=3), "row_count"),
        "rows-of-first-shard-beyond-vocabulary": (
            edited(valid, shard_count=2, vocabulary_size=3),
            "row_count",
        ),
        "rows-missing-at-end": (edited(valid, vocabulary_size=5), "row_count"),
        "first-row-of-only-shard": (
            edited(valid, first_row=1, vocabulary_size=5),
            "first_row",
        ),
        "data-offset-unaligned": (
            edited(valid[:PAGE] + bytes(64) + rows, data_offset=PAGE + 64),
            "data_offset",
        ),
        "data-offset-inside-header": (edited(valid, data_offset=0), "data_offset"),
        "data-offset-overflow": (edited(valid, data_offset=2**63), "data_offset"),
        "gap-not-zero": (
            edited(valid[:PAGE] + b"PK".ljust(PAGE, b"\0") + rows, data_offset=2 * PAGE),
            "gap before data_offset",
        ),
        "row-size-wrong": (edited(valid, row_size=80), "row_size"),
        "row-stride-too-small": (edited(valid[: PAGE + 64 * ROWS], row_stride=64), "row_stride"),
        "row-stride-not-64": (edited(valid[: PAGE + 100 * ROWS], row_stride=100), "row_stride"),
        "row-stride-not-page": (
            edited(large[: PAGE + 12096 * ROWS], row_stride=12096),
            "row_stride",
        ),
        "dtype-unknown": (edited(valid, value_dtype=99), "value_dtype"),
        "dtype-int4": (edited(valid, value_dtype=4), "version_minor"),
        "dtype-int4-keys": (edited(valid, key_dtype=4), "key_dtype"),
        "int4-of-part-of-a-group": (
            edited(valid, version_minor=1, value_dtype=4),
            "value_size",
        ),
        "int4-scales-of-float32": (
            edited(valid, **INT4_FIELDS, scale_dtype=1, value_group_size=32),
            "scale_dtype",
        ),
        "int4-of-another-group": (
            edited(valid, **INT4_FIELDS, scale_dtype=2, value_group_size=16),
            "value_group_size",
        ),
        "dtype-float32-values": (edited(valid, value_dtype=1), "value_dtype"),
        "dtypes-mixed": (edited(valid, key_dtype=2), "key_dtype"),
        "keys-without-size": (edited(valid, key_size=0), "key_size"),
        "scales-missing": (edited(valid, scale_dtype=0), "scale_dtype"),
        "key-group-size-wrong": (edited(valid, key_group_size=1), "key_group_size"),
        "value-group-size-zero": (edited(valid, value_group_size=0), "value_group_size"),
        "flags": (edited(valid, flags=1), "flags"),
        "reserved-field": (edited(valid, reserved=1), "reserved"),
        "reserved-byte": (with_checksum(flipped(valid, 200)), "reserved byte 200"),
        "shard-index-not-below-count": (edited(valid, shard_index=1), "shard_index"),
        "one-shard-of-two": (
            edited(valid, shard_count=2, vocabulary_size=8),
            "shard_count",
        ),
    }
    for field in ("layers", "experts", "value_size", "vocabulary_size", "row_count", "shard_count"):
        contents[f"zero-{field.replace('_', '-')}"] = (edited(valid, **{field: 0}), field)
    found = [Attack(name, partial(_write, data), field) for name, (data, field) in contents.items()]
    flips = {
        "row-first-byte-flipped": (PAGE, 0),
        "row-last-scale-flipped": (PAGE + 128 + 71, 1),
        "row-checksum-flipped": (PAGE + 3 * 128 + 75, 3),
    }
    found += [
        Attack(
            name,
            partial(_write, flipped(valid, position)),
            f"token id {token_id}:",
            ROW_ERROR,
        )
        for name, (position, token_id) in flips.items()
    ]
    found.append(
        Attack(
            "row-embedding-flipped",
            partial(_write, flipped(embedded, PAGE + 2 * 128 + 75)),
            "token id 2:",
            ROW_ERROR,
        )
    )
    zeroed = valid[: PAGE + 128] + bytes(128) + valid[PAGE + 256 :]
    found.append(Attack("row-zeroed", partial(_write, zeroed), "token id 1:", ROW_ERROR))
    found.append(Attack("directory", lambda path: path.mkdir(), "file type"))
    found.append(Attack("fifo", os.mkfifo, "file type"))
    return found


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def main() -> None:
    """Writes every file into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/attacks/blob_files.py OUT_DIR")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_valid(folder / "valid.molkv")
    write_valid(folder / "valid-page-rows.molkv", value_size=3000)
    write_valid(folder / "valid-embedded.molkv", embedded=True)
    expected = {}
    for attack in attacks(folder):
        attack.write(folder / f"{attack.name}.molkv")
        expected[f"{attack.name}.molkv"] = {"error": attack.error, "field": attack.field}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
