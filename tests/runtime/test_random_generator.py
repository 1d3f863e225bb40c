"""SplitMix64: published vectors, the uniform's exact form, refused seeds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molkv_runtime.errors import UsageError
from molkv_runtime.random_generator import LARGEST_SEED, SplitMix64

PUBLISHED_SEED = 1234567
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_the_published_vector_is_reproduced() -> None:
    generator = SplitMix64(PUBLISHED_SEED)
    assert [generator.next_u64() for _ in PUBLISHED] == PUBLISHED


def test_uniforms_are_the_upper_53_bits_exactly() -> None:
    generator = SplitMix64(PUBLISHED_SEED)
    for integer in PUBLISHED:
        assert Fraction(generator.next_uniform()) == Fraction(integer >> 11, 2**53)


@given(st.integers(0, LARGEST_SEED))
def test_every_seed_gives_integers_of_64_bits_and_uniforms_below_one(seed: int) -> None:
    integers, uniforms = SplitMix64(seed), SplitMix64(seed)
    for _ in range(3):
        assert 0 <= integers.next_u64() <= LARGEST_SEED
        assert 0.0 <= uniforms.next_uniform() < 1.0


def test_the_largest_uniform_is_below_one() -> None:
    assert (LARGEST_SEED >> 11) * 2.0**-53 == 1.0 - 2.0**-53


@given(st.integers(0, LARGEST_SEED))
def test_it_equals_the_same_formula_in_wrapping_64_bit_arithmetic(seed: int) -> None:
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    assert SplitMix64(seed).next_u64() == int(z ^ (z >> np.uint64(31)))


def test_uniforms_fill_the_interval_evenly() -> None:
    generator = SplitMix64(7)
    counts = np.zeros(10)
    for _ in range(10_000):
        counts[int(generator.next_uniform() * 10)] += 1
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # chi-square, 9 degrees, p = 0.001


def test_a_numpy_integer_is_a_seed() -> None:
    assert SplitMix64(np.uint64(PUBLISHED_SEED)).next_u64() == PUBLISHED[0]


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 1.5, "7", None, True])
def test_a_seed_outside_64_bits_is_refused_with_its_value_and_a_fix(seed: object) -> None:
    with pytest.raises(UsageError, match="seed") as caught:
        SplitMix64(seed)  # type: ignore[arg-type]
    assert repr(seed) in caught.value.problem
    assert caught.value.fix
