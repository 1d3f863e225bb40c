"""How far two models' predictions lie apart: KL divergence and same-top-1, with error bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Divergence", "Estimate", "compare_logits", "log_softmax"]


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
class Divergence:
    """Of each position: KL(reference || ours) in nats, and whether the best token is the same."""

    nats: NDArray[np.float64]
    same_top1: NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Of two models over the same positions."""

    kl_divergence: Estimate
    same_top1: Estimate

    @classmethod
    def of(cls, parts: Sequence[Divergence]) -> Comparison:
        """The comparison over several sequences."""
        return cls(
            Estimate.of(np.concatenate([part.nats for part in parts])),
            Estimate.of(np.concatenate([part.same_top1 for part in parts])),
        )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log probabilities, float64 [T, V]."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def compare_logits(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> Divergence:
    """Compare logits [T, V] with a reference's."""
    expected = log_softmax(reference)
    nats = (np.exp(expected) * (expected - log_softmax(logits))).sum(axis=-1)
    same = logits.argmax(axis=-1) == reference.argmax(axis=-1)
    return Divergence(nats, same.astype(np.float64))
