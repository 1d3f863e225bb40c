"""SplitMix64: the small random generator that every molkv runtime shares.

It has 64 bits of state and uses only 64-bit integer operations, so C++, Kotlin and Swift
reproduce it to the bit. `docs/sampling.md` is its specification.
"""

from __future__ import annotations

import operator
from typing import SupportsIndex

from molkv_runtime.errors import UsageError

__all__ = ["LARGEST_SEED", "SplitMix64", "validated_seed"]

LARGEST_SEED = 2**64 - 1
_STATE_INCREMENT = 0x9E3779B97F4A7C15
_FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9
_SECOND_MULTIPLIER = 0x94D049BB133111EB

# A double holds 53 bits, so the 11 lowest of the 64 are dropped and the division is exact.
_BITS_DROPPED_FOR_UNIFORM = 11
_UNIFORM_STEP = 2.0**-53


def validated_seed(seed: SupportsIndex) -> int:
    """Returns a seed as a Python integer.

    Args:
        seed: an integer of at least 0 and at most 2^64 - 1.

    Raises:
        UsageError: the seed is no integer, or does not fit 64 bits.
    """
    problem = f"seed is {seed!r}, and must be an integer from 0 to 2^64 - 1 ({LARGEST_SEED})"
    fix = "pass an integer that fits an unsigned 64-bit number, such as 0"
    if isinstance(seed, bool):  # True is an integer to Python, and surely not meant as a seed
        raise UsageError(problem, fix=fix)
    try:
        value = operator.index(seed)
    except TypeError:
        raise UsageError(problem, fix=fix) from None
    if not 0 <= value <= LARGEST_SEED:
        raise UsageError(problem, fix=fix)
    return value


class SplitMix64:
    """A stream of random 64-bit integers and of uniform doubles.

    Args:
        seed: the first state, an integer from 0 to 2^64 - 1.

    Raises:
        UsageError: the seed is no integer, or does not fit 64 bits.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: SupportsIndex) -> None:
        self._state = validated_seed(seed)

    def next_u64(self) -> int:
        """Returns the next integer, from 0 to 2^64 - 1."""
        # Python's integers do not wrap, so each step that can pass 64 bits is masked.
        self._state = (self._state + _STATE_INCREMENT) & LARGEST_SEED
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * _FIRST_MULTIPLIER) & LARGEST_SEED
        mixed = ((mixed ^ (mixed >> 27)) * _SECOND_MULTIPLIER) & LARGEST_SEED
        return mixed ^ (mixed >> 31)

    def next_uniform(self) -> float:
        """Returns the next double in [0, 1), a multiple of 2^-53; it uses up one integer."""
        return (self.next_u64() >> _BITS_DROPPED_FOR_UNIFORM) * _UNIFORM_STEP
