"""``golden.json``: what every runtime must reproduce from a bundle, to the token."""

from __future__ import annotations

from pathlib import Path

import msgspec

from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import decode_json

__all__ = [
    "GOLDEN_FILE",
    "SCHEMA_VERSION",
    "Golden",
    "GoldenCase",
    "GoldenLogits",
    "GoldenRow",
    "GoldenSampling",
    "read_golden",
]

GOLDEN_FILE = "golden.json"
SCHEMA_VERSION = 1


class GoldenLogits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reference's logits after a prompt, as a digest that allows a tolerance.

    `token_ids` and `values` are the largest logits, in order; `mean` and `root_mean_square` run
    over the whole vocabulary.
    """

    token_ids: list[int]
    values: list[float]
    mean: float
    root_mean_square: float


class GoldenSampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A seeded sampling run (docs/sampling.md) and the ids it yields."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    token_ids: list[int]


class GoldenCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt. `text` is None where the bundle has no tokenizer.

    `greedy` continues the prompt; `greedy_margin` is the smallest lead of a chosen token over the
    second best on the way, in logits: it bounds the numeric error that cannot change a token.
    """

    name: str
    text: str | None
    prompt_ids: list[int]
    logits: GoldenLogits
    greedy: list[int]
    greedy_margin: float
    greedy_text: str | None
    sampled: GoldenSampling


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the blob: sha256 of its bytes without padding, and of its dequantized vectors.

    The second digest runs over float32 little-endian: layer by layer keys, then values.
    """

    token_id: int
    bytes_sha256: str
    dequantized_sha256: str


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All golden cases and rows of a bundle.

    `logits_tolerance` is the largest difference from the reference's logits that passes.
    """

    schema_version: int
    logits_tolerance: float
    cases: list[GoldenCase]
    rows: list[GoldenRow]


def read_golden(file: Path, vocabulary_size: int) -> Golden:
    """Read a ``golden.json``.

    Args:
        file: where it is.
        vocabulary_size: of the model; every token id must lie below it.

    Raises:
        BundleError: it is missing, damaged, of another version or of another model.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{file}: cannot be read: {error.strerror}", fix="copy the bundle again"
        ) from None
    golden = decode_json(file, content, Golden)
    if golden.schema_version != SCHEMA_VERSION:
        raise BundleError(
            f"{file}: schema_version is {golden.schema_version}, this runtime reads "
            f"{SCHEMA_VERSION}",
            fix="export again",
        )
    if not golden.cases:
        raise BundleError(f"{file}: cases is empty", fix="export again")
    ids = {row.token_id for row in golden.rows}
    for case in golden.cases:
        ids.update(case.prompt_ids, case.greedy, case.logits.token_ids, case.sampled.token_ids)
    for extreme in (min(ids), max(ids)):
        if not 0 <= extreme < vocabulary_size:
            raise BundleError(
                f"{file}: token id {extreme} is outside the vocabulary, 0 to {vocabulary_size - 1}",
                fix="graph and golden cases must come from one export",
            )
    return golden
