"""Standard errors of means over positions that resemble their neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from molkv_export.divergence import BATCH, Estimate

LENGTH = 512


def texts(correlation: float, count: int, sequences: int) -> NDArray[np.float64]:
    """Positions [count, sequences, LENGTH] of which each keeps a share of the one before."""
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(count, sequences, LENGTH))
    positions = np.empty_like(noise)
    positions[..., 0] = noise[..., 0]
    for place in range(1, LENGTH):
        kept = correlation * positions[..., place - 1]
        positions[..., place] = kept + math.sqrt(1 - correlation**2) * noise[..., place]
    return positions


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_error_is_the_spread_of_the_means_of_many_texts(correlation: float) -> None:
    """Also where positions are correlated, which makes the error of independent ones too small."""
    many = texts(correlation, count=300, sequences=8)
    actual = many.mean(axis=(1, 2)).std()
    estimated = np.mean([Estimate.of(list(text)).error for text in many])
    assert estimated == pytest.approx(actual, rel=0.15)
    as_if_independent = many[0].std() / math.sqrt(many[0].size)
    assert (as_if_independent < actual / 2) == (correlation > 0)


def test_the_mean_is_that_of_all_positions_and_batches_stay_in_their_sequence() -> None:
    generator = np.random.default_rng(2)
    sequences = [generator.normal(size=size) for size in (3 * BATCH + 5, 7, BATCH, 2 * BATCH - 1)]
    estimate = Estimate.of(sequences)
    assert estimate.mean == pytest.approx(np.concatenate(sequences).mean())
    assert estimate.count == sum(map(len, sequences))
    # Nothing but the order of the sequences changes: a batch over their ends would.
    turned = Estimate.of(sequences[::-1])
    assert turned.error == pytest.approx(estimate.error, rel=1e-12)
    assert turned.mean == pytest.approx(estimate.mean, rel=1e-12)


def test_equal_positions_have_no_error_whatever_the_size_of_the_last_batch() -> None:
    assert Estimate.of([np.full(BATCH + 1, 3.5), np.full(9, 3.5)]).error == 0


def test_one_batch_tells_nothing_about_the_error() -> None:
    estimate = Estimate.of([np.arange(BATCH, dtype=np.float64)])
    assert estimate.mean == (BATCH - 1) / 2
    assert math.isinf(estimate.error)
