"""How far two models' predictions lie apart: KL divergence and same-top-1, with error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Estimate", "compare_logits", "log_softmax", "merge"]


@dataclass(frozen=True)
class Estimate:
    """A mean over positions.

    Attributes:
        mean: of the samples.
        error: standard error of the mean, positions taken as independent.
        count: samples.
    """

    mean: float
    error: float
    count: int

    @classmethod
    def of(cls, samples: NDArray[np.float64]) -> Estimate:
        """The estimate from single samples [count]."""
        count = len(samples)
        error = float(samples.std(ddof=1) / math.sqrt(count)) if count > 1 else math.inf
        return cls(float(samples.mean()), error, count)


@dataclass(frozen=True)
class Comparison:
    """Of two models over the same positions: KL divergence in nats, share of equal top-1."""

    kl_divergence: Estimate
    same_top1: Estimate


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log probabilities, float64 [T, V]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def compare_logits(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> Comparison:
    """Compare logits [T, V] with a reference's: KL(reference || ours) and the same best token."""
    return merge([(logits, reference)])


def merge(pairs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Comparison:
    """The comparison over several sequences' (logits, reference) pairs."""
    divergences, agreements = [], []
    for logits, reference in pairs:
        expected = log_softmax(reference)
        divergences.append((np.exp(expected) * (expected - log_softmax(logits))).sum(axis=-1))
        agreements.append(logits.argmax(axis=-1) == reference.argmax(axis=-1))
    return Comparison(
        Estimate.of(np.concatenate(divergences)),
        Estimate.of(np.concatenate(agreements).astype(np.float64)),
    )
