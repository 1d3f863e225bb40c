"""The expert window, kept by the native core."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.errors import ContextLengthError, MolkvError
from molkv_runtime.native import structures
from molkv_runtime.native.blob import RowPointers
from molkv_runtime.native.library import Handle, NativeLibrary, load_library
from molkv_runtime.native.structures import PlaneKind, Status
from molkv_runtime.row_geometry import RowGeometry
from molkv_runtime.row_layout import LayerRows, RowLayout, Section

__all__ = ["NativeWindow"]


class NativeWindow(Handle):
    """Per-layer planes of the rows that the next step attends over, oldest first.

    Args:
        geometry: of the rows.
        window: W.
        chunk: the most tokens that one append brings.
        library: by default the installed one.
    """

    def __init__(
        self,
        geometry: RowGeometry,
        window: int,
        chunk: int,
        *,
        library: NativeLibrary | None = None,
    ) -> None:
        super().__init__(library or load_library(), "window_free")
        self._layout = RowLayout.of(geometry)
        fields = {name: int(getattr(geometry, name)) for name, _ in structures.Geometry._fields_}
        self.library.call(
            "window_create",
            ctypes.byref(structures.Geometry(**fields)),
            ctypes.c_uint32(window),
            ctypes.c_uint32(chunk),
            ctypes.byref(self.pointer),
        )
        self._bounds = (ctypes.c_uint64(), ctypes.c_uint64())
        self._memory = self._map_planes()

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        return int(self.library.plain("window_bytes", self.pointer))

    @property
    def bounds(self) -> tuple[int, int]:
        """First and last-plus-one plane row that the current step reads."""
        first, last = self._bounds
        self.library.plain("window_bounds", self.pointer, ctypes.byref(first), ctypes.byref(last))
        return first.value, last.value

    def append(self, rows: RowPointers, row_stride: int) -> None:
        """Append the rows of a step's new tokens and drop those that none of them can attend."""
        self.library.call(
            "window_append",
            self.pointer,
            rows.rows,
            ctypes.c_uint64(row_stride),
            rows.index,
            ctypes.c_size_t(rows.tokens),
        )

    def planes(self) -> list[LayerRows]:
        """Views of the rows that the current step attends over, for every layer.

        Valid until the next append, truncate, reset or close.

        Raises:
            MolkvError: the window is closed.
        """
        if not self.pointer:
            raise MolkvError(
                "expert window: planes after close", fix="keep the window open while reading"
            )
        current = slice(*self.bounds)
        return [
            LayerRows(
                keys=_rows(memory.get("keys"), current),
                values=memory["values"][current],
                key_scales=_rows(memory.get("key_scales"), current),
                value_scales=_rows(memory.get("value_scales"), current),
            )
            for memory in self._memory
        ]

    def reset(self) -> None:
        """Forget all rows."""
        self.library.plain("window_reset", self.pointer)

    def truncate(self, count: int) -> None:
        """Forget the newest rows, to edit a conversation.

        Raises:
            ContextLengthError: that would need rows that were dropped already.
        """
        self.library.call(
            "window_truncate",
            self.pointer,
            ctypes.c_uint64(count),
            errors={Status.OUT_OF_RANGE: ContextLengthError},
        )

    def fork(self) -> NativeWindow:
        """A copy with memory of its own."""
        copy = NativeWindow.__new__(NativeWindow)
        Handle.__init__(copy, self.library, "window_free")
        copy._layout, copy._bounds = self._layout, (ctypes.c_uint64(), ctypes.c_uint64())
        self.library.call("window_fork", self.pointer, ctypes.byref(copy.pointer))
        copy._memory = copy._map_planes()
        return copy

    def _map_planes(self) -> list[dict[str, NDArray[Any]]]:
        """Of every layer, whole planes by name; they stay where they are, so a view is a slice."""
        sections, layers = self._layout.layer_sections, self._layout.geometry.layers
        capacity = self.nbytes // (layers * sum(section.size for section in sections))
        return [
            {section.name: self._map_plane(layer, section, capacity) for section in sections}
            for layer in range(layers)
        ]

    def _map_plane(self, layer: int, section: Section, capacity: int) -> NDArray[Any]:
        plane = structures.Plane()
        self.library.call(
            "window_plane",
            self.pointer,
            ctypes.c_uint32(layer),
            ctypes.c_int(PlaneKind[section.name.upper()]),
            ctypes.byref(plane),
        )
        first, _ = self.bounds
        start = plane.data - first * plane.row_bytes
        content = (ctypes.c_uint8 * (capacity * plane.row_bytes)).from_address(start)
        return np.frombuffer(content, section.dtype).reshape(capacity, *section.shape)


def _rows(plane: NDArray[Any] | None, rows: slice) -> NDArray[Any] | None:
    return None if plane is None else plane[rows]
