"""Makes ``golden.json``: the reference's answers, recorded for every other runtime."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from molkv_export.errors import ExportError
from molkv_export.reference import ReferenceSession
from molkv_model.config import ModelConfig
from molkv_runtime.blob import Blob
from molkv_runtime.golden import (
    SCHEMA_VERSION,
    Golden,
    GoldenCase,
    GoldenLogits,
    GoldenRow,
    GoldenSampling,
)
from molkv_runtime.random_generator import SplitMix64
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.sampler import Sampler, SamplingConfig

__all__ = [
    "GREEDY_TOKENS",
    "LOGITS_TOLERANCE",
    "dequantized_digest",
    "golden_logits",
    "make_golden",
    "row_digest",
]

GREEDY_TOKENS = 64
# float32 graphs differ from torch by the order of their sums; the tiny model measures 1e-5.
LOGITS_TOLERANCE = 1e-4
_TOP = 8
_SAMPLING = SamplingConfig(temperature=0.8, top_k=40, top_p=0.95, min_p=0.02, seed=20251210)
_PROMPTS = {
    "president": "The President of the United States",
    "whale": "Call me Ishmael. The whale",
    "one_character": "A",
    "multilingual": "Größe, naïve — 鯨の歌 🐋🌊 e\u0301",
}
_LONG_SENTENCE = "It was the duty of the Congress to provide for the common defence of the people. "


def make_golden(
    config: ModelConfig, tokenizer: Tokenizer | None, reference: ReferenceSession, blob: Blob | None
) -> Golden:
    """Run the reference over all golden prompts.

    Args:
        config: the model.
        tokenizer: None where the bundle has none; prompts are then random ids.
        reference: a session of it.
        blob: its expert rows, None for a dense model.
    """
    # A tokenizer may make too many tokens of every text; ids fit any context.
    prompts = _prompts(config, tokenizer) or _prompts(config, None)
    context = config.max_position_embeddings
    cases = [
        _case(name, text, ids, tokenizer, _Continuation(reference, context, ids))
        for name, text, ids in prompts
    ]
    return Golden(
        schema_version=SCHEMA_VERSION,
        logits_tolerance=LOGITS_TOLERANCE,
        cases=cases,
        rows=[] if blob is None else _rows(blob, cases),
    )


def golden_logits(logits: NDArray[np.float32]) -> GoldenLogits:
    """The digest of one position's logits."""
    order = np.argsort(-logits, kind="stable")[:_TOP]
    wide = logits.astype(np.float64)
    return GoldenLogits(
        token_ids=order.tolist(),
        values=[float(value) for value in logits[order]],
        mean=float(wide.mean()),
        root_mean_square=float(np.sqrt((wide**2).mean())),
    )


def row_digest(blob: Blob, row: NDArray[np.uint8]) -> str:
    """sha256 of a row without its padding."""
    return hashlib.sha256(row[: blob.layout.row_size].tobytes()).hexdigest()


def dequantized_digest(blob: Blob, row: NDArray[np.uint8]) -> str:
    """sha256 of a row's dequantized vectors, layer by layer keys, then values."""
    digest = hashlib.sha256()
    for layer in blob.layout.sections(row[None]):
        for vectors, scales in _vectors(layer):
            exact = vectors.astype(np.float32)
            if scales is not None:
                exact = exact * scales[..., None]
            digest.update(np.ascontiguousarray(exact, "<f4").tobytes())
    return digest.hexdigest()


def _vectors(
    layer: LayerRows,
) -> list[tuple[NDArray[np.generic], NDArray[np.float32] | None]]:
    pairs = [] if layer.keys is None else [(layer.keys, layer.key_scales)]
    return [*pairs, (layer.values, layer.value_scales)]


def _prompts(
    config: ModelConfig, tokenizer: Tokenizer | None
) -> list[tuple[str, str | None, list[int]]]:
    """Name, text and ids of every golden prompt, one of them longer than the expert window."""
    room = max(1, config.max_position_embeddings - GREEDY_TOKENS)
    longer_than_window = min(room, config.expert_window + 24)
    if tokenizer is None:
        generator = SplitMix64(0)
        lengths = {"one_id": 1, "short": min(room, 12), "longer_than_window": longer_than_window}
        return [
            (name, None, [generator.next_u64() % config.vocab_size for _ in range(length)])
            for name, length in lengths.items()
        ]
    long_ids = tokenizer.encode(_LONG_SENTENCE * longer_than_window, add_special_tokens=False).ids
    long_text = tokenizer.decode(long_ids[:longer_than_window])
    prompts = {**_PROMPTS, "longer_than_window": long_text}
    encoded = [
        (name, text, tokenizer.encode(text, add_special_tokens=False).ids)
        for name, text in prompts.items()
    ]
    return [(name, text, ids) for name, text, ids in encoded if 0 < len(ids) <= room]


def _case(
    name: str,
    text: str | None,
    ids: list[int],
    tokenizer: Tokenizer | None,
    continuation: _Continuation,
) -> GoldenCase:
    greedy, margin = continuation.run(Sampler(SamplingConfig()))
    sampled, _ = continuation.run(Sampler(_SAMPLING))
    settings = _SAMPLING
    return GoldenCase(
        name=name,
        text=text,
        prompt_ids=ids,
        logits=golden_logits(continuation.logits),
        greedy=greedy,
        greedy_margin=margin,
        greedy_text=None if tokenizer is None else tokenizer.decode(greedy),
        sampled=GoldenSampling(
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            seed=settings.seed,
            token_ids=sampled,
        ),
    )


class _Continuation:
    """Continues one prompt, with one sampler after the other.

    Attributes:
        logits: after the prompt.

    Raises:
        ExportError: the logits are not finite.
    """

    def __init__(self, reference: ReferenceSession, context: int, prompt: Sequence[int]) -> None:
        self._reference = reference
        self._prompt = prompt
        # As a session does: the token that follows the last position is still sampled.
        self._count = min(GREEDY_TOKENS, context - len(prompt) + 1)
        self._reference.reset()
        self.logits = self._reference.run(prompt)[-1]
        if not np.isfinite(self.logits).all():
            raise ExportError(
                f"logits after the prompt {list(prompt)} are NaN or infinite",
                fix="the weights are too large for float32; use another checkpoint",
            )

    def run(self, sampler: Sampler) -> tuple[list[int], float]:
        """The ids that follow, and the smallest lead of the best token over the second best."""
        self._reference.rewind(len(self._prompt))
        last, ids, margin = self.logits, list[int](), math.inf
        while True:
            best, second = -np.partition(-last, 1)[:2]
            margin = min(margin, float(best - second))
            ids.append(sampler.sample(last))
            if len(ids) == self._count:
                return ids, margin
            last = self._reference.run(ids[-1:])[-1]


def _rows(blob: Blob, cases: Sequence[GoldenCase]) -> list[GoldenRow]:
    """The first and last row, and those of the prompts' first tokens."""
    wanted = {0, blob.vocabulary_size - 1}
    for case in cases:
        wanted.update(case.prompt_ids[:8])
    ids = sorted(wanted)
    batch = blob.read(ids)
    return [
        GoldenRow(
            token_id=token_id,
            bytes_sha256=row_digest(blob, batch.rows[place]),
            dequantized_sha256=dequantized_digest(blob, batch.rows[place]),
        )
        for token_id, place in zip(ids, batch.index.tolist(), strict=True)
    ]
