"""molkv.h as ctypes sees it, for the tests."""

from __future__ import annotations

import ctypes
import enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molkv_runtime.row_geometry import DataType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from molkv_runtime.row_geometry import RowGeometry


class Status(enum.IntEnum):
    """molkv_status."""

    OK = 0
    INVALID_ARGUMENT = 1
    IO = 2
    FORMAT = 3
    CORRUPT_ROW = 4
    OUT_OF_RANGE = 5
    OUT_OF_MEMORY = 6
    UNSUPPORTED = 7


class NativeError(Exception):
    """A function of the library failed."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status
        self.message = message


class ErrorStruct(ctypes.Structure):
    _fields_ = (("status", ctypes.c_int), ("message", ctypes.c_char * 1020))


class Geometry(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in (
            "layers",
            "experts",
            "key_heads",
            "key_size",
            "value_size",
            "key_dtype",
            "value_dtype",
            "scale_dtype",
            "key_group_size",
            "value_group_size",
        )
    )

    @classmethod
    def of(cls, geometry: RowGeometry) -> Geometry:
        return cls(**{name: int(getattr(geometry, name)) for name, _ in cls._fields_})


class BlobOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_uint32),
        ("readers", ctypes.c_uint32),
        ("skip_verify", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
        ("direct_io", ctypes.c_uint32),
        ("cache_bytes", ctypes.c_uint64),
    )


class BlobInfo(ctypes.Structure):
    _fields_ = (
        ("geometry", Geometry),
        ("vocabulary_size", ctypes.c_uint64),
        ("row_size", ctypes.c_uint64),
        ("row_stride", ctypes.c_uint64),
        ("identity", ctypes.c_uint8 * 32),
    )


class BlobStats(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("reads", "rows", "bytes", "cache_hits", "nanoseconds")
    )


class Plane(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_uint64),
        ("row_bytes", ctypes.c_uint64),
        ("dtype", ctypes.c_uint32),
    )


class Library:
    """The shared library; functions that return a status raise `NativeError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def call(self, name: str, *arguments: Any) -> None:
        error = ErrorStruct()
        status = Status(getattr(self._library, name)(*arguments, ctypes.byref(error)))
        if status is not Status.OK:
            assert error.status == status
            raise NativeError(status, error.message.decode())

    def plain(self, name: str, *arguments: Any, returns: Any = None) -> Any:
        function = getattr(self._library, name)
        function.restype = returns
        return function(*arguments)


def pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class NativeBlob:
    """An open molkv_blob."""

    def __init__(self, library: Library, paths: Path | Sequence[Path], **options: int) -> None:
        names = [str(path).encode() for path in ([paths] if isinstance(paths, Path) else paths)]
        array = (ctypes.c_char_p * len(names))(*names)
        given = BlobOptions(struct_size=ctypes.sizeof(BlobOptions), **options)
        self.library = library
        self.handle = ctypes.c_void_p()
        library.call(
            "molkv_blob_open",
            array,
            ctypes.c_size_t(len(names)),
            ctypes.byref(given),
            ctypes.byref(self.handle),
        )

    @property
    def info(self) -> BlobInfo:
        info = BlobInfo()
        self.library.plain("molkv_blob_get_info", self.handle, ctypes.byref(info))
        return info

    @property
    def stats(self) -> BlobStats:
        stats = BlobStats()
        self.library.plain("molkv_blob_get_stats", self.handle, ctypes.byref(stats))
        return stats

    def read(self, token_ids: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Rows uint8 [distinct, row_stride] and index uint32 [tokens]."""
        ids = np.array(list(token_ids), np.int64)
        rows = np.zeros((len(ids), self.info.row_stride), np.uint8)
        index = np.zeros(len(ids), np.uint32)
        distinct = ctypes.c_size_t()
        self.library.call(
            "molkv_blob_read",
            self.handle,
            pointer(ids),
            ctypes.c_size_t(len(ids)),
            pointer(rows),
            pointer(index),
            ctypes.byref(distinct),
        )
        return rows[: distinct.value], index

    @property
    def embedding_dtype(self) -> DataType:
        function = "molkv_blob_embedding_dtype"
        return DataType(self.library.plain(function, self.handle, returns=ctypes.c_uint32))

    def embeddings(self, rows: NDArray[np.uint8], index: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Input embeddings float32 [tokens, d], from rows that were read."""
        embeddings = np.zeros((len(index), self.info.geometry.value_size), np.float32)
        self.library.call(
            "molkv_blob_embeddings",
            self.handle,
            pointer(rows),
            pointer(index),
            ctypes.c_size_t(len(index)),
            pointer(embeddings),
        )
        return embeddings

    def prefetch(self, token_ids: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """The same, read in the background."""
        ids = np.array(list(token_ids), np.int64)
        handle = ctypes.c_void_p()
        count = ctypes.c_size_t(len(ids))
        self.library.call(
            "molkv_prefetch_start", self.handle, pointer(ids), count, ctypes.byref(handle)
        )
        rows, index, distinct = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
        try:
            self.library.call(
                "molkv_prefetch_wait",
                handle,
                ctypes.byref(rows),
                ctypes.byref(index),
                ctypes.byref(distinct),
            )
            stride = self.info.row_stride
            row_bytes = ctypes.string_at(rows.value or 0, distinct.value * stride)
            index_bytes = ctypes.string_at(index.value or 0, 4 * len(ids))
        finally:
            self.library.plain("molkv_prefetch_free", handle)
        return (
            np.frombuffer(row_bytes, np.uint8).reshape(distinct.value, stride),
            np.frombuffer(index_bytes, np.uint32),
        )

    def close(self) -> None:
        self.library.plain("molkv_blob_close", self.handle)
        self.handle = ctypes.c_void_p()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


PLANE_KINDS = ("keys", "values", "key_scales", "value_scales")
PLANE_TYPES = {
    DataType.FLOAT32: "<f4",
    DataType.FLOAT16: "<f2",
    DataType.INT8: "|i1",
    DataType.INT4: "|u1",
}


class NativeWindow:
    """A molkv_window."""

    def __init__(self, library: Library, geometry: RowGeometry, window: int, chunk: int) -> None:
        self.library = library
        self.handle = ctypes.c_void_p()
        library.call(
            "molkv_window_create",
            ctypes.byref(Geometry.of(geometry)),
            ctypes.c_uint32(window),
            ctypes.c_uint32(chunk),
            ctypes.byref(self.handle),
        )

    @property
    def nbytes(self) -> int:
        return int(self.library.plain("molkv_window_bytes", self.handle, returns=ctypes.c_uint64))

    @property
    def bounds(self) -> tuple[int, int]:
        first, last = ctypes.c_uint64(), ctypes.c_uint64()
        self.library.plain(
            "molkv_window_bounds", self.handle, ctypes.byref(first), ctypes.byref(last)
        )
        return first.value, last.value

    def append(self, rows: NDArray[np.uint8], index: NDArray[np.uint32]) -> None:
        self.library.call(
            "molkv_window_append",
            self.handle,
            pointer(rows),
            ctypes.c_uint64(rows.shape[1]),
            pointer(index),
            ctypes.c_size_t(len(index)),
        )

    def reset(self) -> None:
        self.library.plain("molkv_window_reset", self.handle)

    def plane(self, layer: int, kind: str) -> NDArray[Any] | None:
        """A copy of one plane, flat; None where the geometry has none."""
        plane = Plane()
        self.library.call(
            "molkv_window_plane",
            self.handle,
            ctypes.c_uint32(layer),
            ctypes.c_int(PLANE_KINDS.index(kind)),
            ctypes.byref(plane),
        )
        if plane.data is None:
            assert plane.dtype == DataType.NONE
            return None
        content = ctypes.string_at(plane.data, plane.rows * plane.row_bytes)
        return np.frombuffer(content, PLANE_TYPES[DataType(plane.dtype)])

    def free(self) -> None:
        self.library.plain("molkv_window_free", self.handle)
        self.handle = ctypes.c_void_p()
