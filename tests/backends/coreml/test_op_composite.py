"""Rung 3: the op as a composite of MIL ops, against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from molkv_export.backends.coreml.op_parity import compare_composite, run_composite
from molkv_export.backends.coreml.parity import OP_TOLERANCE
from molkv_export.op_parity import WRONG_FORMULA_DIFFERENCE, make_case
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.row_geometry import DataType, RowGeometry


def geometry(dtype: DataType = DataType.INT8, **changes: int) -> RowGeometry:
    sizes = {"layers": 1, "experts": 3, "key_heads": 2, "key_size": 8, "value_size": 64}
    return RowGeometry.of(dtype=dtype, **(sizes | changes))


GEOMETRIES = {
    "padded keys": geometry(),
    "padded values": geometry(value_size=24),
    "nothing padded": geometry(key_size=32, key_heads=4, value_size=128),
    "float16 rows": geometry(DataType.FLOAT16),
    "int4 rows": geometry(DataType.INT4),
    "one expert, one head": geometry(experts=1, key_heads=1),
    "MoLE": geometry(key_heads=0, key_size=0),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_composite_is_the_op_and_a_wrong_formula_is_not(name: str) -> None:
    sound, control = compare_composite(GEOMETRIES[name], 1 if name == "MoLE" else 5)
    assert sound.difference < OP_TOLERANCE
    assert control.must_differ
    assert control.difference > WRONG_FORMULA_DIFFERENCE


@pytest.mark.parametrize("start", [0, 1, 5, 8])
def test_rows_before_the_start_are_not_attended(start: int) -> None:
    case = make_case(geometry(), 6, tokens=2, rows=10, start=start)
    expected = expert_attention(case.query, case.rows, case.age_bias, start)
    assert np.abs(run_composite(case) - expected).max() < OP_TOLERANCE * np.abs(expected).max()
    other = replace(case, start=start + 1) if start < 8 else replace(case, start=start - 1)
    # Both ends of the comparison can tell starts apart where the window reaches them.
    if start >= 4:
        assert np.abs(run_composite(other) - expected).max() > 10 * OP_TOLERANCE
