"""``golden.json``: what every runtime must reproduce from a bundle, to the token."""

from __future__ import annotations

from pathlib import Path

import msgspec

from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import decode_json

__all__ = [
    "GOLDEN_FILE",
    "LOGITS_TOLERANCE",
    "RELATIVE_LOGITS_TOLERANCE",
    "SCHEMA_VERSION",
    "Golden",
    "GoldenCase",
    "GoldenLogits",
    "GoldenRow",
    "GoldenSampling",
    "logits_tolerance",
    "read_golden",
]

GOLDEN_FILE = "golden.json"
SCHEMA_VERSION = 1
# Engines sum in different orders, so float32 logits differ by a share of the largest of them,
# whatever its scale. Torch in float32 against itself in float64: 8e-7 in the trained tiny model,
# 2e-5 in random models of 12 layers with six times the usual weights. The floor is for small
# logits.
LOGITS_TOLERANCE = 1e-4
RELATIVE_LOGITS_TOLERANCE = 3e-5


def logits_tolerance(largest: float) -> float:
    """How far a runtime's logits may lie from the reference's.

    Args:
        largest: the largest magnitude of a logit, over all positions that are compared.
    """
    return max(LOGITS_TOLERANCE, RELATIVE_LOGITS_TOLERANCE * largest)


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
    """A seeded sampling run (docs/sampling.md) and the ids it yields.

    It ends before the first token that an error of the tolerance could change.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    token_ids: list[int]


class GoldenCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One prompt. `text` is None where the bundle has no tokenizer.

    `logits_tolerance` is the largest difference from the reference's logits that passes, at every
    position of the prompt and of its continuation. `greedy` continues the prompt, and ends before
    the first token whose lead over the second best is below twice the tolerance: two right
    runtimes may choose differently there. `greedy_margin` is the smallest lead on the way, in
    logits, 0 where there is no token.
    """

    name: str
    text: str | None
    prompt_ids: list[int]
    logits_tolerance: float
    logits: GoldenLogits
    greedy: list[int]
    greedy_margin: float
    greedy_text: str | None
    sampled: GoldenSampling

    def sequence(self, context: int) -> list[int]:
        """The prompt and its greedy continuation, as far as they fit a context."""
        return (self.prompt_ids + self.greedy)[:context]


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the blob: sha256 of its bytes without padding, and of its dequantized vectors.

    The second digest runs over float32 little-endian: layer by layer keys, then values; last the
    input embedding, if rows carry it.
    """

    token_id: int
    bytes_sha256: str
    dequantized_sha256: str


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All golden cases and rows of a bundle."""

    schema_version: int
    cases: list[GoldenCase]
    rows: list[GoldenRow]


def read_golden(file: Path, vocabulary_size: int) -> Golden:
    """Read a ``golden.json``.

    Args:
        file: where it is.
        vocabulary_size: of the model; every token id must lie below it.

    Raises:
        BundleError: it is missing, damaged, of another version or of another model, or has no
            case or a tolerance that nothing can meet.
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
        if case.logits_tolerance <= 0:
            raise BundleError(
                f"{file}: logits_tolerance of {case.name} is {case.logits_tolerance}",
                fix="it must be above 0; export again",
            )
        ids.update(case.prompt_ids, case.greedy, case.logits.token_ids, case.sampled.token_ids)
    for extreme in (min(ids), max(ids)):
        if not 0 <= extreme < vocabulary_size:
            raise BundleError(
                f"{file}: token id {extreme} is outside the vocabulary, 0 to {vocabulary_size - 1}",
                fix="graph and golden cases must come from one export",
            )
    return golden
