"""Quantization errs by at most half a step, and refuses what it cannot represent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from molkv_export.quantize import key_precision, pack_int4, quantize
from molkv_runtime.dequantize import dequantize, unpack_int4
from molkv_runtime.errors import MolkvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES = npst.array_shapes(min_dims=1, max_dims=3, max_side=9)
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@given(npst.arrays(np.float32, SHAPES, elements=FLOATS))
@settings(max_examples=200, deadline=None)
def test_int8_errs_by_at_most_half_a_step(vectors: NDArray[np.float32]) -> None:
    quantized = quantize(vectors, "int8")
    assert quantized.scales is not None
    assert quantized.values.dtype == np.int8
    assert quantized.scales.dtype == np.float32
    assert quantized.scales.shape == vectors.shape[:-1]
    assert quantized.values.min() >= -127  # -128 has no counterpart
    scales = quantized.scales.astype(np.float64)[..., None]
    error = np.abs(vectors - scales * quantized.values)
    # The quotient is rounded to float32 before it is rounded to an integer; the least scales
    # have no full precision.
    assert (error <= scales / 2 * (1 + 1e-5) + 1e-43).all()


@given(npst.arrays(np.float32, SHAPES, elements=st.floats(-100, 100, width=32)))
@settings(max_examples=50, deadline=None)
def test_the_largest_value_of_a_vector_keeps_its_sign_and_fills_the_range(
    vectors: NDArray[np.float32],
) -> None:
    quantized = quantize(vectors, "int8").values
    largest = np.abs(vectors).max(axis=-1)
    filled = np.abs(quantized.astype(int)).max(axis=-1)
    assert (filled[largest > 1e-30] == 127).all()
    assert (quantized * np.sign(vectors) >= 0).all()


def test_vectors_of_zeros_have_scale_zero_and_stay_zero() -> None:
    vectors = np.array([[0, 0, 0], [1, -2, 0.5]], np.float32)
    quantized = quantize(vectors, "int8")
    assert quantized.scales is not None
    assert quantized.scales.tolist() == [0.0, pytest.approx(2 / 127)]
    assert quantized.values.tolist() == [[0, 0, 0], [64, -127, 32]]


def test_rounding_is_to_nearest_with_ties_to_even() -> None:
    # The scale is exactly one.
    vectors = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, 3.49]], np.float32)
    assert quantize(vectors, "int8").values.tolist() == [[127, 0, 2, 2, 0, -2, 3]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", ["int8", "int4", "f16"])
def test_values_that_are_not_finite_are_refused(value: float, precision: str) -> None:
    with pytest.raises(MolkvError, match="NaN or infinite") as caught:
        quantize(np.array([[1, value] * 16], np.float32), precision)  # type: ignore[arg-type]
    assert caught.value.fix


def test_float16_is_rounded_and_has_no_scales() -> None:
    vectors = np.array([[65504, -65504, 1 / 3, 0]], np.float32)
    quantized = quantize(vectors, "f16")
    assert quantized.scales is None
    np.testing.assert_array_equal(quantized.values, vectors.astype(np.float16))
    with pytest.raises(MolkvError, match=r"is 65505, float16 ends at 65504 .*int8"):
        quantize(np.array([[1, -65505]], np.float32), "f16")


INT4_SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([32, 64, 96]))


def round_to_nearest(vectors: NDArray[np.float32], divisor: float) -> NDArray[np.float32]:
    """The plain scheme: a group's scale is its element of largest magnitude over a number."""
    groups = vectors.reshape(-1, 32)
    extremes = groups[np.arange(len(groups)), np.abs(groups).argmax(axis=1)]
    scales = (extremes / np.float32(divisor)).astype(np.float16).astype(np.float32)[:, None]
    scales[scales == 0] = 1
    rounded: NDArray[np.float32] = (np.rint(groups / scales).clip(-8, 7) * scales).reshape(
        vectors.shape
    )
    return rounded


@given(npst.arrays(np.float32, INT4_SHAPES, elements=st.floats(-100, 100, width=32)))
@settings(max_examples=200, deadline=None)
def test_int4_never_errs_by_more_than_a_step_of_the_widest_range(
    vectors: NDArray[np.float32],
) -> None:
    quantized = quantize(vectors, "int4")
    assert quantized.scales is not None
    assert (quantized.values.dtype, quantized.scales.dtype) == (np.uint8, np.float16)
    assert quantized.values.shape == (len(vectors), vectors.shape[1] // 2)
    assert quantized.scales.shape == (len(vectors), vectors.shape[1] // 32)
    error = np.abs(dequantize(quantized.values, quantized.scales) - vectors).reshape(-1, 32)
    largest = np.abs(vectors).reshape(-1, 32).max(axis=1, keepdims=True)
    # A scale below float16's least normal number has less precision.
    assert (error <= largest / 8 * 1.005 + 8 * 2.0**-24).all()


@pytest.mark.parametrize("divisor", [7, -8])
def test_int4_scales_leave_less_error_than_plain_rounding(divisor: float) -> None:
    vectors = np.random.default_rng(3).standard_normal((200, 64)).astype(np.float32)
    quantized = quantize(vectors, "int4")
    ours = np.square(dequantize(quantized.values, quantized.scales) - vectors)
    plain = np.square(round_to_nearest(vectors, divisor) - vectors)
    assert ours.mean() < 0.98 * plain.mean()
    if divisor == -8:  # which is among the candidates
        assert (ours.reshape(-1, 32).sum(1) <= plain.reshape(-1, 32).sum(1) * (1 + 1e-5)).all()


def test_int4_is_exact_where_it_can_be() -> None:
    # A step of a half, and the element of largest magnitude 8 steps, of either sign.
    steps = np.tile(np.arange(-8, 8, dtype=np.float32), 2)
    for sign in (0.5, -0.5):
        quantized = quantize((sign * steps)[None], "int4")
        assert quantized.scales is not None
        assert quantized.scales.tolist() == [[sign]]
        assert dequantize(quantized.values, quantized.scales).tolist() == [(sign * steps).tolist()]
    zeros = quantize(np.zeros((1, 32), np.float32), "int4")
    assert not zeros.values.any()


def test_int4_groups_too_small_for_a_scale_become_zeros() -> None:
    vectors = np.full((1, 64), 1e-8, np.float32)
    vectors[0, 32:] = 1
    quantized = quantize(vectors, "int4")
    assert dequantize(quantized.values, quantized.scales).tolist() == [[0.0] * 32 + [1.0] * 32]


def test_int4_values_whose_scale_is_no_float16_are_refused() -> None:
    vectors = np.full((1, 32), 400_000, np.float32)
    with pytest.raises(MolkvError, match=r"is 400000, the scales of int4 end at 393024 .*int8"):
        quantize(vectors, "int4")


def test_the_first_int4_element_of_a_byte_is_in_its_low_bits() -> None:
    packed = pack_int4(np.array([[1, -8, 7, -1]], np.int8))
    assert packed.tolist() == [[0x81, 0xF7]]
    every = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(pack_int4(unpack_int4(every)), every)


def test_keys_of_int4_rows_are_int8() -> None:
    assert [key_precision(precision) for precision in ("int8", "int4", "f16")] == [
        "int8",
        "int8",
        "f16",
    ]
