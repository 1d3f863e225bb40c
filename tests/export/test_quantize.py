"""Quantization errs by at most half a step, and refuses what it cannot represent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from molkv_export.quantize import quantize
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
@pytest.mark.parametrize("precision", ["int8", "f16"])
def test_values_that_are_not_finite_are_refused(value: float, precision: str) -> None:
    with pytest.raises(MolkvError, match="NaN or infinite") as caught:
        quantize(np.array([[1, value]], np.float32), precision)  # type: ignore[arg-type]
    assert caught.value.fix


def test_float16_is_rounded_and_has_no_scales() -> None:
    vectors = np.array([[65504, -65504, 1 / 3, 0]], np.float32)
    quantized = quantize(vectors, "f16")
    assert quantized.scales is None
    np.testing.assert_array_equal(quantized.values, vectors.astype(np.float16))
    with pytest.raises(MolkvError, match=r"is 65505, float16 ends at 65504 .*int8"):
        quantize(np.array([[1, -65505]], np.float32), "f16")
