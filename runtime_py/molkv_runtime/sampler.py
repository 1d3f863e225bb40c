"""Chooses the next token from logits, the same way to the bit on every platform.

`docs/sampling.md` is the specification that this module implements; `tests/golden/sampling.json`
holds vectors for the other languages. Two things keep the result exact everywhere: only IEEE 754
double operations that are correctly rounded (+, -, *, /, comparison) are used, each rounded on
its own, and every sum runs from the first candidate to the last. The exponential is our own for
the same reason: the libraries' ones differ in the last bit.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from molkv_runtime.errors import MolkvError, UsageError
from molkv_runtime.random_generator import SplitMix64, validated_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EXPONENTIAL_COEFFICIENTS",
    "EXPONENTIAL_CUTOFF",
    "LN2_HIGH",
    "LN2_LOW",
    "LOG2E",
    "Candidates",
    "Sampler",
    "SamplingConfig",
    "exponential",
    "ordered_token_ids",
    "select_candidates",
]

# Below this the weight is exactly 0. Above it no result is subnormal, so hardware that flushes
# subnormal numbers to zero gives the same bits.
EXPONENTIAL_CUTOFF = -700.0
LOG2E = float.fromhex("0x1.71547652b82fep+0")
# ln 2 in two parts. The low 21 bits of the high part are zero, so k * LN2_HIGH is exact.
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
# 1/n! for n = 0..13, each the nearest double.
EXPONENTIAL_COEFFICIENTS = tuple(
    float.fromhex(digits)
    for digits in (
        "0x1.0000000000000p+0",
        "0x1.0000000000000p+0",
        "0x1.0000000000000p-1",
        "0x1.5555555555555p-3",
        "0x1.5555555555555p-5",
        "0x1.1111111111111p-7",
        "0x1.6c16c16c16c17p-10",
        "0x1.a01a01a01a01ap-13",
        "0x1.a01a01a01a01ap-16",
        "0x1.71de3a556c734p-19",
        "0x1.27e4fb7789f5cp-22",
        "0x1.ae64567f544e4p-26",
        "0x1.1eed8eff8d898p-29",
        "0x1.6124613a86d09p-33",
    )
)

_SIGN_SHIFT = np.uint32(31)
_MAGNITUDE_BITS = np.uint32(0x7FFFFFFF)
_NEGATIVE_ZERO_BITS = np.uint32(0x80000000)
_TOKEN_ID_BITS = np.uint64(32)
_TOKEN_ID_MASK = np.uint64(0xFFFFFFFF)
_LARGEST_VOCABULARY = 2**32

# More columns give a tighter bound on the logits that matter, and a slower search for it.
_COLUMNS_PER_WANTED_TOKEN = 16


def _validated_real(field: str, value: object, rule: str, fix: str) -> float:
    """Returns a field's value as a double, or refuses what is no finite number."""
    # A bool is a number to Python, and surely not meant as one here.
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise UsageError(f"{field} is {value!r}, and must be {rule}", fix=fix)


@dataclass(frozen=True)
class SamplingConfig:
    """How the next token is chosen. The default is greedy: always the most likely token.

    The three real fields are doubles. A runtime that stores them as 32-bit floats samples with
    slightly different figures and leaves the specification.

    Attributes:
        temperature: 0 is greedy; above 0 the logits are divided by it, so that small values
            favour likely tokens. Finite, at least 0.
        top_k: only so many of the most likely tokens are candidates; 0 keeps all.
        top_p: only the most likely tokens that together have at least this share of the
            probability are candidates; 1 keeps all. Above 0, at most 1.
        min_p: only tokens at least this many times as likely as the most likely one are
            candidates; 0 keeps all. From 0 to 1.
        seed: where the random numbers start, from 0 to 2^64 - 1.

    Raises:
        UsageError: a field is out of its range; the message names field, value and fix.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot work, and stores plain Python numbers."""
        rule = "a finite number of at least 0"
        fix = "use 0 for greedy, or a value such as 0.8"
        temperature = _validated_real("temperature", self.temperature, rule, fix)
        if temperature < 0:
            raise UsageError(f"temperature is {self.temperature!r}, and must be {rule}", fix=fix)

        top_k = self._validated_top_k()

        rule = "a number above 0 and at most 1"
        fix = "use 1 to keep every token, or a value such as 0.95"
        top_p = _validated_real("top_p", self.top_p, rule, fix)
        if not 0 < top_p <= 1:
            raise UsageError(f"top_p is {self.top_p!r}, and must be {rule}", fix=fix)

        rule = "a number from 0 to 1"
        fix = "use 0 to keep every token, or a value such as 0.05"
        min_p = _validated_real("min_p", self.min_p, rule, fix)
        if not 0 <= min_p <= 1:
            raise UsageError(f"min_p is {self.min_p!r}, and must be {rule}", fix=fix)

        seed = validated_seed(self.seed)
        # The dataclass is frozen; this is the one place that may still write to it.
        for field, value in (
            ("temperature", temperature),
            ("top_k", top_k),
            ("top_p", top_p),
            ("min_p", min_p),
            ("seed", seed),
        ):
            object.__setattr__(self, field, value)

    def _validated_top_k(self) -> int:
        """Returns `top_k` as a plain integer, or refuses it."""
        value: SupportsIndex = self.top_k
        try:
            top_k = -1 if isinstance(value, bool) else operator.index(value)
        except TypeError:
            top_k = -1
        if top_k < 0:
            raise UsageError(
                f"top_k is {value!r}, and must be an integer of at least 0",
                fix="use 0 to keep every token, or a value such as 40",
            )
        return top_k


@dataclass(frozen=True, eq=False)
class Candidates:
    """The tokens that a draw chooses among, most likely first.

    Attributes:
        token_ids: int64 [C], ordered by logit descending, then by id ascending.
        weights: float64 [C], not normalised; the most likely token's weight is 1.
        cumulative: float64 [C], running sums of `weights`, added in order.
    """

    token_ids: NDArray[np.int64]
    weights: NDArray[np.float64]
    cumulative: NDArray[np.float64]

    def choose(self, uniform: float) -> int:
        """Returns the token id that a uniform number in [0, 1) falls on."""
        target = uniform * float(self.cumulative[-1])
        # The first index whose running sum is above the target. A token of weight 0 is never it:
        # its running sum is its predecessor's.
        index = int(np.searchsorted(self.cumulative, target, side="right"))
        # For a uniform below 1 the product rounds to less than the total, so there is always such
        # an index; the bound is for callers that pass 1.
        return int(self.token_ids[min(index, len(self.token_ids) - 1)])


def exponential(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the specified exponential: the same bits everywhere.

    Args:
        exponents: float64 [C], each at most 0; -inf is allowed.

    Returns:
        float64 [C]; exactly 1 for 0, exactly 0 below `EXPONENTIAL_CUTOFF`, and otherwise less
        than 1.5 units in the last place from the true value.
    """
    vanished = exponents < EXPONENTIAL_CUTOFF
    # 0 stands in for the vanished ones, so that -inf never meets a multiplication.
    x = np.where(vanished, 0.0, exponents)
    k = np.floor(x * LOG2E + 0.5)
    remainder = (x - k * LN2_HIGH) - k * LN2_LOW
    # Each NumPy operation below is one rounded pass over memory, so no compiler can fuse the
    # multiplication and the addition, which would change the last bit.
    polynomial = np.full_like(x, EXPONENTIAL_COEFFICIENTS[-1])
    for coefficient in EXPONENTIAL_COEFFICIENTS[-2::-1]:
        polynomial *= remainder
        polynomial += coefficient
    result: NDArray[np.float64] = np.ldexp(polynomial, k.astype(np.int32))
    result[vanished] = 0.0
    return result


def _checked_maximum(logits: NDArray[np.float32]) -> np.float32:
    """Returns the largest logit.

    Args:
        logits: float32 [V].

    Raises:
        UsageError: `logits` is not a float32 vector of at least one value.
        MolkvError: a logit is NaN or +inf, or all are -inf.
    """
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32:
        found = getattr(logits, "dtype", type(logits).__name__)
        raise UsageError(
            f"logits are {found}, and must be a NumPy array of float32",
            fix="pass the graph's output as it is, without widening it",
        )
    if logits.ndim != 1 or not 0 < len(logits) <= _LARGEST_VOCABULARY:
        raise UsageError(
            f"logits have shape {list(logits.shape)}, and must have shape [vocabulary size]",
            fix="pass one position's logits, such as logits[0, -1]",
        )
    largest: np.float32 = logits.max()  # NaN if any value is
    if math.isfinite(largest):
        return largest
    if largest == -math.inf:
        raise MolkvError(
            f"all {len(logits)} logits are -inf, so no token is allowed",
            fix="leave at least one token unmasked",
        )
    broken = np.flatnonzero(np.isnan(logits) | (logits == np.inf))
    raise MolkvError(
        f"{len(broken)} of {len(logits)} logits are NaN or +inf, "
        f"the first is token {broken[0]} with {logits[broken[0]]}",
        fix="the model's weights or its graph are damaged; run `molkv verify` on the bundle",
    )


def _possible_token_ids(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Returns ids, ascending, that are sure to include those of the `count` largest logits.

    Args:
        logits: float32 [V], without NaN.
        count: how many are wanted.

    Returns:
        int64 [C], with min(count, V) <= C <= V; C is little above `count` for ordinary logits.
    """
    columns = count * _COLUMNS_PER_WANTED_TOKEN
    rows = len(logits) // columns
    if rows < 2:
        return np.arange(len(logits))
    # At least `count` columns, and so `count` logits, reach the count-th largest column maximum.
    # So the count-th largest logit does too, and nothing below this bound can be wanted. Finding
    # it costs one pass, where a partition of all V logits takes ten times as long.
    maxima = logits[: rows * columns].reshape(rows, columns).max(axis=0)
    bound = np.partition(maxima, columns - count)[columns - count]
    return np.flatnonzero(logits >= bound)


def ordered_token_ids(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Returns the ids of the largest logits, by logit descending, then by id ascending.

    Args:
        logits: float32 [V], without NaN; -0 and +0 are equal.
        count: how many ids to return; V or more returns all.

    Returns:
        int64 [min(count, V)].
    """
    token_ids = _possible_token_ids(logits, count)
    # One unsigned integer a token, ascending in the wanted order: the logit's bits, made to
    # compare backwards, above the id. No two are equal, so a partition and an unstable sort give
    # exactly what a stable sort of everything would, ties included, and are far faster.
    bits = logits[token_ids].view(np.uint32)
    bits = np.where(bits == _NEGATIVE_ZERO_BITS, np.uint32(0), bits)
    # A larger positive float has larger bits, a larger negative one has smaller bits.
    descending = np.where(bits >> _SIGN_SHIFT, bits, bits ^ _MAGNITUDE_BITS)
    keys = descending.astype(np.uint64) << _TOKEN_ID_BITS
    keys |= token_ids.astype(np.uint64)
    if count < len(keys):
        keys = np.partition(keys, count - 1)[:count]
    keys.sort()
    return (keys & _TOKEN_ID_MASK).astype(np.int64)


def select_candidates(logits: NDArray[np.float32], config: SamplingConfig) -> Candidates:
    """Selects and weighs the tokens that one draw chooses among.

    Args:
        logits: float32 [V].
        config: how to select them; its temperature is above 0.

    Returns:
        At least one candidate, the first with weight 1.

    Raises:
        UsageError: `logits` is no float32 vector, or the temperature is 0.
        MolkvError: a logit is NaN or +inf, or all are -inf.
    """
    if config.temperature == 0:
        raise UsageError(
            "temperature is 0, which is greedy and has no candidates to weigh",
            fix="use a temperature above 0, or Sampler.sample, which handles both",
        )
    largest = float(_checked_maximum(logits))
    token_ids = ordered_token_ids(logits, config.top_k or len(logits))

    differences = logits[token_ids].astype(np.float64) - largest
    # A tiny temperature may turn a difference into -inf, whose weight is 0: that is as meant.
    with np.errstate(over="ignore"):
        weights = exponential(differences / config.temperature)
    # np.sum adds pairwise; np.cumsum adds from the first to the last, as specified.
    cumulative = np.cumsum(weights)

    if config.top_p < 1:
        enough = config.top_p * float(cumulative[-1])
        kept = int(np.searchsorted(cumulative, enough, side="left")) + 1
        token_ids, weights, cumulative = token_ids[:kept], weights[:kept], cumulative[:kept]
    if config.min_p > 0:
        likely = weights >= config.min_p
        token_ids, weights = token_ids[likely], weights[likely]
        cumulative = np.cumsum(weights)
    return Candidates(token_ids=token_ids, weights=weights, cumulative=cumulative)


class Sampler:
    """Chooses tokens one after another; the same config and logits give the same tokens.

    At temperature 0 no random number is drawn. Above 0 every call draws exactly one, even if
    only one candidate is left, so the n-th token depends on the n-th number whatever the
    other settings are. A call that raises draws none.

    Args:
        config: how tokens are chosen.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config
        self._generator = SplitMix64(config.seed)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """Returns the id of the chosen token.

        Args:
            logits: float32 [V]; -inf forbids a token.

        Raises:
            UsageError: `logits` is not a float32 vector of at least one value.
            MolkvError: a logit is NaN or +inf, or all are -inf.
        """
        if self.config.temperature == 0:
            _checked_maximum(logits)
            return int(logits.argmax())  # the first of equal ones
        return select_candidates(logits, self.config).choose(self._generator.next_uniform())

    def reset(self) -> None:
        """Starts the random numbers again at the config's seed."""
        self._generator = SplitMix64(self.config.seed)
