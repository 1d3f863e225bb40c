"""How far two models' predictions lie apart: KL divergence and same-top-1, with error bars.

Logits of all positions of a text would fill memory where the vocabulary is large, so they are
compared a block of positions at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BATCH",
    "Comparison",
    "Divergence",
    "Estimate",
    "block_rows",
    "compare_logits",
    "log_softmax",
]

# A block is 2 MiB, and its float64 copies together about 20 MiB.
_BLOCK_VALUES = 1 << 19

BATCH = 128
"""Neighbouring positions that count as one sample of a standard error (docs/fidelity.md)."""


def block_rows(vocabulary_size: int) -> int:
    """How many positions make a block of logits."""
    return max(1, _BLOCK_VALUES // vocabulary_size)


@dataclass(frozen=True)
class Estimate:
    """A mean over positions.

    Attributes:
        mean: of the positions.
        error: standard error of the mean, by batch means: neighbouring positions are alike, so
            batches of `BATCH` of them are taken as independent, not the positions. Infinite where
            there is one batch only.
        count: positions.
    """

    mean: float
    error: float
    count: int

    @classmethod
    def of(cls, sequences: Sequence[NDArray[np.float64]]) -> Estimate:
        """The estimate from the positions of sequences, float64 [count] each.

        A sequence's last batch may be shorter, so the mean is a ratio of sums over batches, and
        its error is that of the ratio, to first order.
        """
        starts = [np.arange(0, len(samples), BATCH) for samples in sequences]
        sums = np.concatenate(
            [np.add.reduceat(samples, at) for samples, at in zip(sequences, starts, strict=True)]
        )
        counts = np.concatenate(
            [
                np.diff(at, append=len(samples))
                for samples, at in zip(sequences, starts, strict=True)
            ]
        )
        batches, count = len(sums), int(counts.sum())
        mean = float(sums.sum() / count)
        if batches < 2:
            return cls(mean, math.inf, count)
        spread = float(np.square(sums - mean * counts).sum()) * batches / (batches - 1)
        return cls(mean, math.sqrt(spread) / count, count)


@dataclass(frozen=True)
class Divergence:
    """Of each position: KL(reference || ours) in nats, and whether the best token is the same."""

    nats: NDArray[np.float64]
    same_top1: NDArray[np.float64]

    @classmethod
    def joined(cls, blocks: Sequence[Divergence]) -> Divergence:
        """Of a sequence, from consecutive blocks of it."""
        return cls(
            np.concatenate([block.nats for block in blocks]),
            np.concatenate([block.same_top1 for block in blocks]),
        )


@dataclass(frozen=True)
class Comparison:
    """Of two models over the same positions."""

    kl_divergence: Estimate
    same_top1: Estimate

    @classmethod
    def of(cls, parts: Sequence[Divergence]) -> Comparison:
        """The comparison over several sequences, or parts of them."""
        return cls(
            Estimate.of([part.nats for part in parts]),
            Estimate.of([part.same_top1 for part in parts]),
        )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log probabilities, float64 [T, V]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def compare_logits(
    logits: NDArray[np.float32], reference: NDArray[np.float32], *, near_tie: float = 0.0
) -> Divergence:
    """Compare logits with a reference's.

    Args:
        logits: [T, V].
        reference: [T, V].
        near_tie: the best token counts as the same if the reference's logit of it is at most this
            much below the reference's best. Exact ties always count as the same.
    """
    expected = log_softmax(reference)
    nats = (np.exp(expected) * (expected - log_softmax(logits))).sum(axis=-1)
    positions = np.arange(len(reference))
    lead = reference.max(axis=-1) - reference[positions, logits.argmax(axis=-1)]
    return Divergence(nats, (lead <= near_tie).astype(np.float64))
