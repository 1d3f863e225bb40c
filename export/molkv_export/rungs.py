"""Rungs of the parity ladder as they are recorded."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.manifest import RungEntry

__all__ = [
    "PrecisionLimits",
    "at_least",
    "at_most",
    "difference",
    "distance",
    "listed",
    "nearest_to_limit",
]


@dataclass(frozen=True)
class PrecisionLimits:
    """How far a dense precision may lead.

    Attributes:
        tolerance_factor: of the golden cases' tolerance, which is float32's, for logits beside
            torch's on the weights as they are stored.
        nats: KL divergence from the trained weights, mean over positions.
        same_top1: share of positions with the trained weights' best token.
    """

    tolerance_factor: float
    nats: float
    same_top1: float


def at_most(name: str, figure: float, limit: float, detail: str) -> RungEntry:
    """A rung that passes up to a limit."""
    return RungEntry(name, figure <= limit, _finite(figure), limit, detail=detail)


def at_least(name: str, figure: float, limit: float, detail: str) -> RungEntry:
    """A rung that passes from a limit on."""
    return RungEntry(name, figure >= limit, _finite(figure), limit, True, detail)


def nearest_to_limit(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of figures with their limits, the one that is the largest part of its limit."""
    return max(pairs, key=lambda pair: pair[0] / pair[1])


def listed(numbers: Sequence[int]) -> str:
    """Numbers for a rung's detail."""
    return ", ".join(map(str, numbers))


def distance(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """The largest difference; infinity for NaN."""
    return difference(float(np.abs(ours - theirs).max()), 0.0)


def difference(ours: float, theirs: float) -> float:
    """Infinity for NaN, which would otherwise compare as no difference at all."""
    result = abs(ours - theirs)
    return math.inf if math.isnan(result) else result


def _finite(figure: float) -> float:
    """JSON has no NaN and no infinity; both mean as wrong as can be."""
    return float(figure) if math.isfinite(figure) else sys.float_info.max
