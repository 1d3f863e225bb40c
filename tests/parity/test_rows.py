"""Rungs 1 and 2: rows come back as written, and dequantize to the model's own experts."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from molkv_export.golden import dequantized_digest, row_digest
from molkv_model.checkpoint import load
from molkv_runtime.bundle import Bundle
from molkv_runtime.dequantize import dequantize

if TYPE_CHECKING:
    from tests.conftest import BundleOf, CheckpointOf

BUNDLES = [
    ("molkv", "int8"),
    ("molkv", "int4"),
    ("molkv", "f16"),
    ("mole", "int8"),
    ("mole", "int4"),
    ("mole-published", "f16"),
]
TOKEN_IDS = [0, 1, 7, 318, 319]


def dequantized_by_hand(file: Path, token_id: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Reads one row with nothing but `struct` and docs/format.md's tables."""
    with file.open("rb") as blob:
        header = blob.read(108)
        data_offset, stride = struct.unpack_from("<QQ", header, 16)
        layers, experts, key_heads, key_size, value_size = struct.unpack_from("<5I", header, 72)
        (value_type,) = struct.unpack_from("<H", header, 94)
        blob.seek(data_offset + token_id * stride)
        row = blob.read(stride)
    position = 0

    def section(code: str, count: int) -> tuple[float, ...]:
        nonlocal position
        numbers = struct.unpack_from(f"<{count}{code}", row, position)
        position += -(-struct.calcsize(f"<{count}{code}") // 4) * 4
        return numbers

    def int4_section(count: int) -> tuple[float, ...]:
        elements = [part for byte in section("B", count // 2) for part in (byte % 16, byte // 16)]
        return tuple(part - 16 if part > 7 else part for part in elements)

    code = {2: "e", 3: "b", 4: "b"}[value_type]
    found = []
    for _ in range(layers):
        widths = {"values": value_size}
        if key_heads:
            widths = {"keys": key_heads * key_size, **widths}
        numbers = {
            name: int4_section(experts * width)
            if value_type == 4 and name == "values"
            else section(code, experts * width)
            for name, width in widths.items()
        }
        # One for each element, whatever shares it.
        scales = {name: (1.0,) * experts * width for name, width in widths.items()}
        if code == "b":
            scales = {
                name: tuple(np.repeat(section("e", experts * width // 32), 32))
                if value_type == 4 and name == "values"
                else tuple(np.repeat(section("f", experts), width))
                for name, width in widths.items()
            }
        found.append(
            {
                name: np.array(
                    [
                        [
                            scales[name][n * width + i] * numbers[name][n * width + i]
                            for i in range(width)
                        ]
                        for n in range(experts)
                    ]
                )
                for name, width in widths.items()
            }
        )
    return found


@pytest.mark.parametrize(("kind", "experts"), BUNDLES)
def test_reader_gives_what_hand_parsing_of_the_file_gives(
    bundle_of: BundleOf, kind: str, experts: str
) -> None:
    bundle = Bundle.open(bundle_of(kind, experts))
    blob = bundle.open_experts()
    assert blob is not None
    with blob:
        batch = blob.read(TOKEN_IDS)
        layers = blob.layout.sections(batch.rows)
    for place, token_id in enumerate(TOKEN_IDS):
        by_hand = dequantized_by_hand(bundle.path / "experts.molkv", token_id)
        for layer, expected in zip(layers, by_hand, strict=True):
            assert ("keys" in expected) == (layer.keys is not None)
            for name, vectors in expected.items():
                scales = getattr(layer, f"{name.removesuffix('s')}_scales")
                assert (scales is None) == (experts == "f16")
                ours = dequantize(getattr(layer, name), scales)[batch.index[place]]
                np.testing.assert_array_equal(ours, vectors.astype(np.float32))


@pytest.mark.parametrize(("kind", "experts"), BUNDLES)
def test_rows_are_the_trained_models_experts_to_half_a_quantization_step(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str, experts: str
) -> None:
    model = load(checkpoint_of(kind))
    with torch.no_grad():
        embeddings = model.model.embed_tokens(torch.tensor(TOKEN_IDS))
        tables = [layer.experts.table(embeddings) for layer in model.model.layers]
    file = bundle_of(kind, experts) / "experts.molkv"
    for place, token_id in enumerate(TOKEN_IDS):
        for (keys, values), found in zip(tables, dequantized_by_hand(file, token_id), strict=True):
            wanted = {"values": values[place].numpy()}
            if keys is not None:
                wanted["keys"] = keys[place].flatten(1).numpy()
            assert set(wanted) == set(found)
            for name, vectors in wanted.items():
                precision = "int8" if (name, experts) == ("keys", "int4") else experts
                step = largest_change(vectors, precision)
                assert (np.abs(found[name] - vectors) <= step * 1.001 + 1e-6).all()
                assert np.abs(found[name]).max() > 0.1


def largest_change(vectors: np.ndarray[Any, Any], precision: str) -> Any:
    """The most that rounding may change an element by."""
    if precision == "f16":
        return np.abs(vectors) / 2048 + 1e-7
    if precision == "int8":
        return np.abs(vectors).max(axis=-1, keepdims=True) / 127 / 2
    groups = np.abs(vectors).reshape(len(vectors), -1, 32)
    # -8 has no counterpart: an element of the other sign loses up to a step, an eighth of the
    # largest. Scales are halves.
    most = groups.max(axis=-1, keepdims=True) / 8 * 1.005
    return np.broadcast_to(most, groups.shape).reshape(vectors.shape)


def test_golden_rows_are_the_files_bytes(bundle_of: BundleOf) -> None:
    bundle = Bundle.open(bundle_of("molkv", "int8"))
    content = (bundle.path / "experts.molkv").read_bytes()
    data_offset, stride, row_size = struct.unpack_from("<QQQ", content, 16)
    rows = bundle.load_golden().rows
    assert {0, bundle.manifest.model.vocab_size - 1} <= {row.token_id for row in rows}
    for row in rows:
        start = data_offset + row.token_id * stride
        digest = hashlib.sha256(content[start : start + row_size]).hexdigest()
        assert digest == row.bytes_sha256
        by_hand = hashlib.sha256()
        for layer in dequantized_by_hand(bundle.path / "experts.molkv", row.token_id):
            for name in ("keys", "values"):
                by_hand.update(layer[name].astype("<f4").tobytes())
        assert by_hand.hexdigest() == row.dequantized_sha256


def test_a_changed_row_changes_both_digests(bundle_of: BundleOf) -> None:
    blob = Bundle.open(bundle_of("molkv", "int8")).open_experts()
    assert blob is not None
    with blob:
        row = blob.read([3]).rows[0]
        changed = row.copy()
        changed[0] ^= 1
        assert row_digest(blob, row) != row_digest(blob, changed)
        assert dequantized_digest(blob, row) != dequantized_digest(blob, changed)
