"""Makes ``golden.json``: the reference's answers, recorded for every other runtime."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from molkv_export.divergence import block_rows
from molkv_export.errors import ExportError
from molkv_export.reference import ReferenceSession
from molkv_model.config import ModelConfig
from molkv_runtime.blob import Blob
from molkv_runtime.dequantize import dequantize
from molkv_runtime.golden import (
    SCHEMA_VERSION,
    Golden,
    GoldenCase,
    GoldenLogits,
    GoldenRow,
    GoldenSampling,
    logits_tolerance,
)
from molkv_runtime.random_generator import SplitMix64
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.sampler import SamplingConfig, select_candidates

__all__ = [
    "GREEDY_TOKENS",
    "MOST_CASES",
    "dequantized_digest",
    "golden_logits",
    "golden_prompts",
    "make_golden",
    "row_digest",
]

GREEDY_TOKENS = 64
_TOP = 8
_SAMPLING = SamplingConfig(temperature=0.8, top_k=40, top_p=0.95, min_p=0.02, seed=20251210)
_SEEDS = 8
_PROMPTS = {
    "president": "The President of the United States",
    "whale": "Call me Ishmael. The whale",
    "one_character": "A",
    "multilingual": "Größe, naïve — 鯨の歌 🐋🌊 e\u0301",
}
MOST_CASES = len(_PROMPTS) + 1
"""With a tokenizer; the last prompt is longer than the window."""

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
    cases = [
        _case(name, text, tokenizer, _Continuation(reference, config, ids))
        for name, text, ids in golden_prompts(config, tokenizer)
    ]
    return Golden(
        schema_version=SCHEMA_VERSION,
        cases=cases,
        rows=[] if blob is None else _rows(blob, cases),
    )


def golden_prompts(
    config: ModelConfig, tokenizer: Tokenizer | None
) -> list[tuple[str, str | None, list[int]]]:
    """Name, text and ids of every golden prompt, one of them longer than the expert window."""
    # A tokenizer may make too many tokens of every text; ids fit any context.
    return _prompts(config, tokenizer) or _prompts(config, None)


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
    """sha256 of a row's dequantized vectors: by layer keys, then values; last its embedding."""
    digest = hashlib.sha256()
    for layer in blob.layout.sections(row[None]):
        for vectors, scales in _vectors(layer):
            exact = dequantize(vectors, scales)
            digest.update(np.ascontiguousarray(exact, "<f4").tobytes())
    embedding = blob.layout.embeddings(row[None])
    if embedding is not None:
        digest.update(np.ascontiguousarray(embedding, "<f4").tobytes())
    return digest.hexdigest()


def _vectors(
    layer: LayerRows,
) -> list[tuple[NDArray[np.generic], NDArray[np.floating] | None]]:
    pairs = [] if layer.keys is None else [(layer.keys, layer.key_scales)]
    return [*pairs, (layer.values, layer.value_scales)]


def _prompts(
    config: ModelConfig, tokenizer: Tokenizer | None
) -> list[tuple[str, str | None, list[int]]]:
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
    name: str, text: str | None, tokenizer: Tokenizer | None, continuation: _Continuation
) -> GoldenCase:
    greedy, margin = continuation.greedy()
    return GoldenCase(
        name=name,
        text=text,
        prompt_ids=continuation.prompt,
        logits_tolerance=continuation.tolerance,
        logits=golden_logits(continuation.logits),
        greedy=greedy,
        greedy_margin=margin,
        greedy_text=None if tokenizer is None else tokenizer.decode(greedy),
        sampled=_sampling(continuation),
    )


def _sampling(continuation: _Continuation) -> GoldenSampling:
    """The first of a few seeds whose draws are certain to the end, else the one that lasts."""
    best, longest = _SAMPLING, list[int]()
    for seed in range(_SAMPLING.seed, _SAMPLING.seed + _SEEDS):
        config = replace(_SAMPLING, seed=seed)
        token_ids = continuation.sampled(config)
        if len(token_ids) > len(longest):
            best, longest = config, token_ids
        if len(longest) == continuation.count:
            break
    return GoldenSampling(
        temperature=best.temperature,
        top_k=best.top_k,
        top_p=best.top_p,
        min_p=best.min_p,
        seed=best.seed,
        token_ids=longest,
    )


class _Continuation:
    """Continues one prompt, with one way to choose tokens after the other.

    What two runtimes that are both within the tolerance could choose differently is not recorded:
    continuations end before it.

    Attributes:
        prompt: its token ids.
        count: the most tokens that follow.
        logits: float32 [V], after the prompt.
        tolerance: of logits, for all positions of the prompt and its greedy continuation.

    Raises:
        ExportError: the logits are not finite.
    """

    def __init__(self, reference: ReferenceSession, config: ModelConfig, prompt: list[int]) -> None:
        self.prompt = prompt
        self._reference = reference
        # As a session does: the token that follows the last position is still sampled.
        self.count = min(GREEDY_TOKENS, config.max_position_embeddings - len(prompt) + 1)
        self._largest = 0.0
        self._reference.reset()
        for block in self._reference.run_blocks(prompt, block_rows(config.vocab_size)):
            self._measure(block)
            self.logits = block[-1]
        self._best, self._margins = self._run_greedy()
        self.tolerance = logits_tolerance(self._largest)

    def greedy(self) -> tuple[list[int], float]:
        """The best ids that follow, and the smallest lead over the second best among them."""
        certain = [margin >= 2 * self.tolerance for margin in self._margins]
        count = certain.index(False) if False in certain else len(certain)
        return self._best[:count], min(self._margins[:count], default=0.0)

    def sampled(self, config: SamplingConfig) -> list[int]:
        """The ids that follow when they are drawn (docs/sampling.md)."""
        self._reference.rewind(len(self.prompt))
        generator = SplitMix64(config.seed)
        last, ids = self.logits, list[int]()
        while True:
            uniform = generator.next_uniform()
            chosen = select_candidates(last, config).choose(uniform)
            if not self._is_certain(last, config, uniform, chosen):
                return ids
            ids.append(chosen)
            if len(ids) == self.count:
                return ids
            last = self._reference.run([chosen])[-1]

    def _run_greedy(self) -> tuple[list[int], list[float]]:
        """Ids and their leads."""
        last, ids, margins = self.logits, list[int](), list[float]()
        while True:
            leaders = np.partition(last, -min(2, len(last)))[-2:]
            margins.append(float(leaders[-1] - leaders[0]))
            ids.append(int(last.argmax()))
            if len(ids) == self.count:
                return ids, margins
            last = self._reference.run(ids[-1:])[-1]
            self._measure(last)

    def _measure(self, logits: NDArray[np.float32]) -> None:
        largest = max(float(logits.max()), -float(logits.min()))
        if not math.isfinite(largest):
            raise ExportError(
                f"logits after the prompt {self.prompt} or within it are NaN or infinite",
                fix="the weights are too large for float32; use another checkpoint",
            )
        self._largest = max(self._largest, largest)

    def _is_certain(
        self, logits: NDArray[np.float32], config: SamplingConfig, uniform: float, chosen: int
    ) -> bool:
        """Whether the draw stands when logits err by the tolerance, where that hurts most."""
        likelier = logits >= logits[chosen]
        for likelier_error, own_error, other_error in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1)):
            errors = np.where(likelier, likelier_error, other_error).astype(np.float32)
            errors[chosen] = own_error
            changed = logits + np.float32(self.tolerance) * errors
            if select_candidates(changed, config).choose(uniform) != chosen:
                return False
        return True


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
