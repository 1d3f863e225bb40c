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

if TYPE_CHECKING:
    from tests.conftest import BundleOf, CheckpointOf

BUNDLES = [("molkv", "int8"), ("molkv", "f16"), ("mole", "int8"), ("mole-published", "f16")]
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

    code = {2: "e", 3: "b"}[value_type]
    found = []
    for _ in range(layers):
        widths = {"values": value_size}
        if key_heads:
            widths = {"keys": key_heads * key_size, **widths}
        numbers = {name: section(code, experts * width) for name, width in widths.items()}
        scales = dict.fromkeys(widths, (1.0,) * experts)
        if code == "b":
            scales = {name: section("f", experts) for name in widths}
        found.append(
            {
                name: np.array(
                    [
                        [scales[name][n] * numbers[name][n * width + i] for i in range(width)]
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
                ours = getattr(layer, name)[batch.index[place]].astype(np.float64)
                if experts == "int8":
                    scales = getattr(layer, f"{name.removesuffix('s')}_scales")
                    ours = ours * scales[batch.index[place]][:, None]
                np.testing.assert_array_equal(ours, vectors)


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
                largest = np.abs(vectors).max(axis=-1, keepdims=True)
                step = largest / 127 / 2 if experts == "int8" else np.abs(vectors) / 2048 + 1e-7
                assert (np.abs(found[name] - vectors) <= step * 1.001 + 1e-6).all()
                assert np.abs(found[name]).max() > 0.1


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
