"""docs/format.md is true: its programs run, and its dump, JSON and tables are what they make."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from molkv_export.quantize import pack_int4
from molkv_runtime.blob import Blob
from molkv_runtime.blob_header import MAXIMUM_DATA_OFFSET, MAXIMUM_ROWS, MAXIMUM_SHARDS
from molkv_runtime.row_geometry import LIMITS, DataType
from molkv_runtime.row_layout import MAXIMUM_STRIDE, LayerRows, RowGeometry, RowLayout
from tests.attacks.blob_files import FIELDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def code_block(language: str, marker: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    (found,) = [block for block in blocks if marker in block]
    return found


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    exec(code_block("python", "BlobWriter"), {})  # noqa: S102
    return tmp_path / "example.molkv"


def test_the_dump_is_the_file_byte_for_byte(example: Path) -> None:
    content = bytearray(example.stat().st_size)
    described = 0
    for line in code_block("text", "00000000: ").splitlines():
        if line == "*":
            continue
        match = re.fullmatch(r"([0-9a-f]{8}): ((?:[0-9a-f]{2} ){15}[0-9a-f]{2})(  .+)?", line)
        assert match, line
        start = int(match[1], 16)
        content[start : start + 16] = bytes.fromhex(match[2])
        described += 1
    assert described > 20
    # Lines that the dump leaves out were zero in `content`, and must be so in the file.
    assert bytes(content) == example.read_bytes()
    assert f"= {len(content)} bytes" in DOCUMENT


def test_the_int4_row_is_what_the_layout_packs() -> None:
    geometry = RowGeometry.of(
        DataType.INT4, layers=1, experts=1, key_heads=0, key_size=0, value_size=32
    )
    elements = np.tile(np.arange(-8, 8, dtype=np.int8), 2)[None, None]
    scales = np.full((1, 1, 1), -0.5, np.float16)
    layout = RowLayout.of(geometry)
    row = layout.pack([LayerRows(None, pack_int4(elements), None, scales)])[0]
    lines = code_block("text", "-8 in the low bits").splitlines()
    shown = "".join(re.match(r"(?:[0-9a-f]{2} )+", line)[0] for line in lines)  # type: ignore[index]
    assert bytes.fromhex(shown) == row[: layout.row_size].tobytes()


def test_the_row_with_an_embedding_is_what_the_layout_packs() -> None:
    geometry = RowGeometry.of(
        DataType.INT4,
        layers=1,
        experts=1,
        key_heads=0,
        key_size=0,
        value_size=32,
        embedding_dtype=DataType.FLOAT16,
    )
    elements = np.tile(np.arange(-8, 8, dtype=np.int8), 2)[None, None]
    embedding = np.concatenate([2.0 ** np.arange(16), np.zeros(16)]).astype(np.float16)[None]
    layer = LayerRows(None, pack_int4(elements), None, np.full((1, 1, 1), -0.5, np.float16))
    layout = RowLayout.of(geometry)
    row = layout.pack([layer], embedding)[0]
    lines = code_block("text", "scale -0.5, padding | embedding").splitlines()
    shown = "".join(re.match(r"(?:[0-9a-f]{2} ?)+", line)[0] for line in lines)  # type: ignore[index]
    assert bytes.fromhex(shown) == row[: layout.row_size].tobytes()


def test_the_json_is_the_header_of_the_example(example: Path) -> None:
    with Blob.open(example) as blob:
        assert json.loads(code_block("json", "molkv-expert-blob")) == blob.header.to_json()


def test_the_recipe_with_struct_alone_reads_what_the_reader_reads(example: Path) -> None:
    recipe = code_block("python", "def value(")
    assert re.findall(r"^ *(?:import|from) .*", recipe, re.MULTILINE) == ["import struct"]
    names: dict[str, object] = {}
    exec(recipe, names)  # noqa: S102
    value = names["value"]
    assert callable(value)
    with Blob.open(example) as blob:
        sections = blob.layout.sections(blob.read([0, 1]).rows)
        for token_id in range(2):
            for layer in range(2):
                for expert in range(2):
                    part = sections[layer]
                    assert part.value_scales is not None
                    scale = part.value_scales[token_id, expert]
                    expected = (scale * part.values[token_id, expert]).tolist()
                    assert value(example, token_id, layer, expert) == expected
    assert value(example, 1, 1, 0) == [8.0 * number for number in range(-76, -70)]


@pytest.mark.usefixtures("example")
def test_the_reading_example_runs() -> None:
    names: dict[str, object] = {}
    exec(code_block("python", "Blob.open"), names)  # noqa: S102
    assert names["keys"].tolist()[1] == [[1, 2, 3], [4, 5, 6]]  # type: ignore[attr-defined]


def test_the_header_table_has_every_field_at_its_byte() -> None:
    table = dict(re.findall(r"^\| (\d+) \| u\d+(?:\[\d+\])? \| (\w+) \|", DOCUMENT, re.MULTILINE))
    for field, (offset, code) in FIELDS.items():
        assert table[str(offset)] == field
        bits = 8 * struct.calcsize(code)
        assert f"| {offset} | u{bits} | {field} |" in DOCUMENT
    assert len(table) == len(FIELDS) + 4


def test_the_limits_table_has_the_limits_of_the_code() -> None:
    limits = {
        **LIMITS,
        "data_offset": (16384, MAXIMUM_DATA_OFFSET),
        "row_stride": (64, MAXIMUM_STRIDE),
        "vocabulary_size": (1, MAXIMUM_ROWS),
        "first_row": (0, MAXIMUM_ROWS),
        "row_count": (1, MAXIMUM_ROWS),
        "shard_count": (1, MAXIMUM_SHARDS),
    }
    table = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \|$", DOCUMENT, re.MULTILINE)
    assert {field: (int(least), int(most)) for field, least, most in table} == limits


def test_every_link_inside_the_document_leads_somewhere() -> None:
    headings = re.findall(r"^## (.+)$", DOCUMENT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", DOCUMENT)) <= anchors
