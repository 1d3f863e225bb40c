"""The expert window: the last rows' keys and values, in planes that the dense graph reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.blob import RowBatch
from molkv_runtime.row_layout import LayerRows, RowLayout

__all__ = ["ExpertWindow"]


class ExpertWindow:
    """Per-layer planes of the rows that the next step attends over, oldest first.

    Rows are appended where the graph will read them. When the planes are full, the W - 1 rows that
    can still be attended move to the front: one copy every max(chunk, W) single tokens. Memory is
    `nbytes`: (W - 1 + max(chunk, W)) rows of their sections' size.

    Args:
        layout: the row layout.
        window: W.
        chunk: the most tokens that one step may append.
    """

    def __init__(self, layout: RowLayout, window: int, chunk: int) -> None:
        self.layout = layout
        self.window = window
        self.capacity = window - 1 + max(chunk, window)
        self._planes = [
            {section.name: _plane(self.capacity, section) for section in layout.layer_sections}
            for _ in range(layout.geometry.layers)
        ]
        self._first = 0
        self._rows = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return sum(plane.nbytes for layer in self._planes for plane in layer.values())

    @property
    def bounds(self) -> tuple[int, int]:
        """First and last-plus-one plane row that the current step reads."""
        return self._first, self._first + self._rows

    def reset(self) -> None:
        """Forget all rows."""
        self._first = self._rows = 0

    def append(self, batch: RowBatch) -> None:
        """Append the rows of a step's new tokens and drop those that none of them can attend.

        Args:
            batch: as read from the blob; T tokens, T at most `chunk`.
        """
        count = len(batch.index)
        kept = min(self._rows, self.window - 1)
        self._first += self._rows - kept
        if self._first + kept + count > self.capacity:
            self._move_to_front(kept)
        begin = self._first + kept
        for planes, rows in zip(self._planes, self.layout.sections(batch.rows), strict=True):
            for name, plane in planes.items():
                plane[begin : begin + count] = getattr(rows, name)[batch.index]
        self._rows = kept + count

    def planes(self) -> list[LayerRows]:
        """Views of the rows that the current step attends over, for every layer."""
        first, last = self.bounds
        layers = []
        for planes in self._planes:
            views = {name: plane[first:last] for name, plane in planes.items()}
            layers.append(
                LayerRows(
                    keys=views.get("keys"),
                    values=views["values"],
                    key_scales=views.get("key_scales"),
                    value_scales=views.get("value_scales"),
                )
            )
        return layers

    def _move_to_front(self, rows: int) -> None:
        for planes in self._planes:
            for plane in planes.values():
                # NumPy copies overlapping ranges as if through a buffer.
                plane[:rows] = plane[self._first : self._first + rows]
        self._first = 0


def _plane(capacity: int, section: Any) -> NDArray[Any]:
    return np.zeros((capacity, *section.shape), section.dtype)
