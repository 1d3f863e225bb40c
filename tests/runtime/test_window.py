"""The expert window holds the last rows, in place, with few copies."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molkv_runtime.blob import RowBatch
from molkv_runtime.row_layout import DataType, RowGeometry, RowLayout
from molkv_runtime.window import ExpertWindow
from tests.format.strategies import geometries, random_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

GEOMETRY = RowGeometry.of(DataType.INT8, layers=2, experts=2, key_heads=1, key_size=3, value_size=6)
FIELDS = ("keys", "values", "key_scales", "value_scales")


def batch_of(rows: NDArray[np.uint8], ids: list[int]) -> RowBatch:
    distinct, index = np.unique(np.array(ids), return_inverse=True)
    return RowBatch(rows[distinct], index)


def assert_window_holds(window: ExpertWindow, rows: NDArray[np.uint8], ids: list[int]) -> None:
    for ours, expected in zip(window.planes(), window.layout.sections(rows[ids]), strict=True):
        for field in FIELDS:
            left, right = getattr(ours, field), getattr(expected, field)
            assert (left is None) == (right is None)
            if left is not None:
                assert left.dtype == right.dtype
                assert left.tobytes() == right.tobytes()
                assert left.flags.c_contiguous


@given(
    geometry=geometries(),
    window_size=st.integers(1, 9),
    chunk=st.integers(1, 12),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_planes_are_the_last_rows_of_a_plain_list(
    geometry: RowGeometry, window_size: int, chunk: int, seed: int, data: st.DataObject
) -> None:
    rows = random_rows(geometry, 7, seed)
    window = ExpertWindow(RowLayout.of(geometry), window_size, chunk)
    model: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.integers(0, 9)) == 0:
            window.reset()
            model.clear()
        ids = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=chunk))
        window.append(batch_of(rows, ids))
        model += ids
        assert_window_holds(window, rows, model[-(window_size - 1 + len(ids)) :])


@pytest.mark.parametrize(
    ("window_size", "chunk", "capacity"),
    [(8, 8, 15), (8, 3, 15), (8, 20, 27), (1, 5, 5), (1, 1, 1)],
)
def test_bytes_are_the_documented_formula(window_size: int, chunk: int, capacity: int) -> None:
    layout = RowLayout.of(GEOMETRY)
    window = ExpertWindow(layout, window_size, chunk)
    # Two layers of 2 keys of 3 bytes, 2 values of 6 bytes, and 2 float32 scales of each.
    assert window.nbytes == capacity * 2 * (2 * 3 + 2 * 6 + 2 * 4 + 2 * 4)
    assert window.capacity == capacity == window_size - 1 + max(chunk, window_size)


@pytest.mark.parametrize("window_size", [1, 2, 5, 8])
def test_single_steps_copy_kept_rows_at_most_once_per_window(
    window_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = random_rows(GEOMETRY, 7)
    window = ExpertWindow(RowLayout.of(GEOMETRY), window_size, chunk=1)
    copies: list[int] = []
    genuine = ExpertWindow._move_to_front

    def counting(self: ExpertWindow, kept: int) -> None:
        copies.append(step)
        assert kept <= window_size - 1
        genuine(self, kept)

    monkeypatch.setattr(ExpertWindow, "_move_to_front", counting)
    for step in range(100):
        window.append(batch_of(rows, [step % 7]))
    assert len(copies) <= 100 / window_size
    assert all(later - earlier >= window_size for earlier, later in pairwise(copies))


def test_rows_are_written_where_the_graph_reads_them() -> None:
    rows = random_rows(GEOMETRY, 7)
    window = ExpertWindow(RowLayout.of(GEOMETRY), 4, 4)
    window.append(batch_of(rows, [1, 2]))
    before = window.planes()[0].values
    window.append(batch_of(rows, [3]))
    after = window.planes()[0].values
    # The same memory, one row more: nothing moved.
    assert np.shares_memory(before, after)
    assert after[:2].ctypes.data == before.ctypes.data
