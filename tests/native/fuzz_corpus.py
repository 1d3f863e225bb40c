"""The inputs that fuzzing begins with: `python -m tests.native.fuzz_corpus` writes them anew.

The format of an input is stated in each target's file in native/fuzz/. Inputs named found-* are
what fuzzing found, because they broke a promise or reached new code; they are kept as they are.
"""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from molkv_export.blob_writer import BlobWriter
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.row_layout import DataType, LayerRows, RowGeometry, RowLayout
from tests.attacks.blob_files import PAGE, attacks, edited, flipped, valid_bytes
from tests.native.tokenizer_examples import (
    GPT2_EXPRESSION,
    GPT4_EXPRESSION,
    QWEN2_EXPRESSION,
    byte_level,
    split,
)

CORPUS = Path(__file__).parents[2] / "native" / "fuzz" / "corpus"
FOUND = "found-"
FIELDS_SIZE = 146  # fuzz_input.h's kFieldsSize
TEXT = "The fox's  fox\n\n123456 \u00e9e\u0301\u65e5 [x]<|end|>' ".encode() + b"\xff\xe2\x82"


def blob_header() -> dict[str, bytes]:
    """The beginning of the header of every hostile blob, and of a valid one."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = {"valid": valid_bytes(Path(folder))}
        for attack in attacks(Path(folder)):
            path = Path(folder) / attack.name
            attack.write(path)
            if path.is_file():
                seeds[attack.name] = path.read_bytes()
    beginnings = {
        name: content[: FIELDS_SIZE + 64].rstrip(b"\0") for name, content in seeds.items()
    }
    return {name: content for name, content in beginnings.items() if content}


def half_precision_blob(folder: Path) -> bytes:
    """Experts without keys: 3 layers of 2 experts, 5 rows."""
    geometry = RowGeometry.of(
        DataType.FLOAT16, layers=3, experts=2, key_heads=0, key_size=0, value_size=5
    )
    header = BlobHeader.of(geometry, vocabulary_size=5, identity=bytes(32))
    generator = np.random.default_rng(11)
    layers = [
        LayerRows(
            keys=None,
            values=generator.standard_normal((5, 2, 5)).astype(np.float16),
            key_scales=None,
            value_scales=None,
        )
        for _ in range(3)
    ]
    path = folder / "half.molkv"
    with BlobWriter(path, header) as writer:
        writer.write_rows(RowLayout.of(geometry).pack(layers))
    return path.read_bytes()


def blob_rows() -> dict[str, bytes]:
    """Whole blobs, each with choices that lead another way."""

    def seed(blob: bytes, flags: int, window: int, chunk: int, ids: list[int]) -> bytes:
        choices = struct.pack("<4B12b", flags, 1, window, chunk, *(ids * 12)[:12])
        return choices + blob[:FIELDS_SIZE] + blob[PAGE:]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valid, half = valid_bytes(folder), half_precision_blob(folder)
        embedded = valid_bytes(folder, embedded=True)
    gap = edited(valid[:PAGE] + bytes(256), data_offset=2 * PAGE)
    return {
        "read": seed(valid, 0, 3, 4, [0, 3, 1, 1]),
        "read-half": seed(half, 0, 4, 2, [4, 0, 2]),
        "read-embedded": seed(embedded, 0, 3, 4, [0, 3, 1, 1]),
        "prefetch-embedded": seed(embedded, 16, 3, 4, [2, 2, 0]),
        "prefetch": seed(valid, 16, 1, 1, [2, 2, 0]),
        "resident": seed(valid, 4, 7, 7, [3, 2, 1, 0]),
        "cache": seed(half, 8, 2, 5, [4, 3, 4, 3]),
        "cache-prefetch": seed(valid, 24, 34, 3, [0, 1, 2, 3]),
        "sealed": seed(flipped(valid, PAGE + 200), 1, 2, 3, [1]),
        "unsealed": seed(flipped(valid, PAGE + 200), 0, 2, 3, [1]),
        "unverified": seed(flipped(valid, PAGE + 200), 2, 2, 3, [1]),
        "damaged-resident": seed(flipped(valid, PAGE + 200), 4, 2, 3, [0]),
        "outside-the-vocabulary": seed(valid, 0, 2, 3, [0, -1, 4]),
        "cut": seed(valid[:-1], 0, 2, 3, [0]),
        "cut-then-extended": seed(valid[: PAGE + 64], 33, 200, 3, [0, 1, 2, 3]),
        "gap": seed(gap, 33, 2, 3, [0, 1]),
        "no-window": seed(valid, 0, 0, 3, [0]),
        "no-chunk": seed(valid, 0, 3, 0, [0]),
    }


def tokenizer(pre_tokenizer: Any, **model_fields: Any) -> Tokenizer:
    """A few bytes and merges; its file has little more than a thousand bytes."""
    alphabet = "Theofxs123.'\u0120\u010a\u00c3\u00a9[]<>|"
    merges = [("f", "o"), ("fo", "x"), ("\u0120", "fox"), ("h", "e"), ("T", "he")]
    merges += [("\u0120", "\u0120"), ("1", "2"), ("\u00c3", "\u00a9"), ("'", "s")]
    vocabulary = {character: place for place, character in enumerate(alphabet)}
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **model_fields))
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.ByteLevel()
    return made


def tokenizer_file() -> dict[str, bytes]:
    """Small tokenizers of each supported kind, and some that must be refused."""
    added = tokenizer(byte_level())
    added.add_special_tokens(["<|end|>", AddedToken("[x]", lstrip=True, special=True)])
    added.add_tokens(
        [AddedToken("fox", single_word=True, rstrip=True), AddedToken("1", normalized=False)]
    )
    composed = tokenizer(byte_level())
    composed.normalizer = normalizers.NFC()
    kinds = {
        "nfc": composed,
        "gpt2": tokenizer(byte_level()),
        "gpt2-space": tokenizer(byte_level(space=True)),
        "gpt2-split": tokenizer(split(GPT2_EXPRESSION)),
        "gpt4": tokenizer(split(GPT4_EXPRESSION)),
        "qwen2": tokenizer(split(QWEN2_EXPRESSION)),
        "uncut": tokenizer(byte_level(expression=False)),
        "whole-pieces": tokenizer(byte_level(), ignore_merges=True),
        "added-tokens": added,
        "refused-pattern": tokenizer(split(r"\d+")),
        "refused-dropout": tokenizer(byte_level(), dropout=0.5),
        "refused-pre-tokenizer": tokenizer(pre_tokenizers.Whitespace()),
    }
    documents = {name: json.loads(kind.to_str()) for name, kind in kinds.items()}
    joined = json.loads(kinds["gpt2"].to_str())
    joined["model"]["merges"] = [" ".join(pair) for pair in joined["model"]["merges"]]
    documents["joined-merges"] = joined
    seeds = {
        name: json.dumps(document, ensure_ascii=name == "gpt4", separators=(",", ":")).encode()
        for name, document in documents.items()
    }
    seeds = {name: content + b"\0" + TEXT for name, content in seeds.items()}
    seeds["cut"] = seeds["gpt2"][:700]
    seeds["nested"] = b'{"a":' * 40 + b"[" * 40
    seeds["numbers"] = (
        b'{"version":[1e400,-0,1.5E-3,18446744073709551616],"model":"\\ud800\\u0041"}'
    )
    return seeds


def inputs() -> dict[str, bytes]:
    """All inputs by path below `CORPUS`."""
    targets = {
        "blob_header": blob_header(),
        "blob_rows": blob_rows(),
        "tokenizer_file": tokenizer_file(),
    }
    return {
        f"{target}/{name}": content
        for target, seeds in targets.items()
        for name, content in seeds.items()
    }


def main() -> None:
    """Writes every input, and deletes those that are no more."""
    wanted = inputs()
    for path in CORPUS.glob("*/*"):
        if not path.name.startswith(FOUND):
            path.unlink()
    for name, content in wanted.items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
