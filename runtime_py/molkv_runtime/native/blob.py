"""The expert blob, read by the native core."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.blob import ReadStats, RowBatch
from molkv_runtime.errors import MolkvError
from molkv_runtime.native import structures
from molkv_runtime.native.library import Handle, NativeLibrary, load_library
from molkv_runtime.native.structures import BlobMode
from molkv_runtime.row_geometry import DataType, RowGeometry

__all__ = ["BlobOptions", "NativeBlob", "Prefetch", "RowPointers"]


@dataclass(frozen=True)
class BlobOptions:
    """How rows are read.

    Attributes:
        readers: threads that read at once, 1 to 64.
        verify_rows: compare the CRC32C of every row.
        resident: read all rows at open and keep them in memory.
        direct_io: bypass the page cache where the file system can.
        cache_bytes: memory for rows that were read before; 0 for none.
    """

    readers: int = 4
    verify_rows: bool = True
    resident: bool = False
    direct_io: bool = False
    cache_bytes: int = 0


@dataclass(frozen=True)
class RowPointers:
    """Rows that the library holds: what `NativeWindow.append` takes.

    Attributes:
        rows: address of uint8 [distinct, row_stride].
        index: address of uint32 [tokens].
        tokens: number of tokens.
        distinct: number of rows.
    """

    rows: ctypes.c_void_p
    index: ctypes.c_void_p
    tokens: int
    distinct: int


class NativeBlob(Handle):
    """An open expert blob.

    `read` may be called from several threads at once; `close` must not race with it.

    Args:
        files: the only file, or all shards in any order.
        options: how rows are read.
        library: by default the installed one.

    Raises:
        BlobFormatError: a file cannot be opened, is not regular, or breaks docs/format.md.
        NativeLibraryError: there is no library.

    Attributes:
        geometry: of a row.
        vocabulary_size: token ids are 0 to vocabulary_size - 1.
        identity: 32 bytes, SHA-256 over the weights of the checkpoint that the blob belongs to.
        row_stride: bytes of a row in the file.
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        options: BlobOptions | None = None,
        *,
        library: NativeLibrary | None = None,
    ) -> None:
        super().__init__(library or load_library(), "blob_close")
        options = options or BlobOptions()
        every = [files] if isinstance(files, str | os.PathLike) else list(files)
        names = [os.fsencode(file) for file in every]
        self.path = Path(every[0]) if every else Path()
        given = structures.BlobOptions(
            struct_size=ctypes.sizeof(structures.BlobOptions),
            readers=_readers(options.readers),
            skip_verify=not options.verify_rows,
            mode=BlobMode.RESIDENT if options.resident else BlobMode.STORAGE,
            direct_io=options.direct_io,
            cache_bytes=options.cache_bytes,
        )
        self.library.call(
            "blob_open",
            (ctypes.c_char_p * len(names))(*names),
            ctypes.c_size_t(len(names)),
            ctypes.byref(given),
            ctypes.byref(self.pointer),
        )
        info = structures.BlobInfo()
        self.library.plain("blob_get_info", self.pointer, ctypes.byref(info))
        embedding = self.library.plain("blob_embedding_dtype", self.pointer)
        self.geometry: RowGeometry = _geometry(info.geometry, DataType(embedding))
        self.vocabulary_size: int = int(info.vocabulary_size)
        self.identity: bytes = bytes(info.identity)
        self.row_stride = int(info.row_stride)
        self._row = np.empty((1, self.row_stride), np.uint8)
        self._row_index = np.zeros(1, np.uint32)
        self._row_pointers = RowPointers(_address(self._row), _address(self._row_index), 1, 1)
        self._id, self._count = ctypes.c_int64(), ctypes.c_size_t()

    @property
    def stats(self) -> ReadStats:
        """A snapshot of what has been read since the blob was opened."""
        stats = structures.BlobStats()
        self.library.plain("blob_get_stats", self._open(), ctypes.byref(stats))
        return ReadStats(stats.reads, stats.rows, stats.bytes, 1e-9 * stats.nanoseconds)

    def read(
        self,
        token_ids: NDArray[np.int64] | Sequence[int],
        out: NDArray[np.uint8] | None = None,
    ) -> RowBatch:
        """Read the rows of some tokens, each distinct one once, in file order.

        Args:
            token_ids: integers [tokens], in any order, repeats allowed, possibly empty.
            out: uint8 [at least tokens, row_stride] to read into; by default new memory.

        Returns:
            the distinct rows and where each token's is.

        Raises:
            TokenIdError: an id lies outside the vocabulary; nothing is read.
            RowCorruptError: a row cannot be read whole or fails its CRC32C.
        """
        ids = np.ascontiguousarray(token_ids, np.int64)
        rows = np.empty((len(ids), self.row_stride), np.uint8) if out is None else out
        if rows.dtype != np.uint8 or len(rows) < len(ids) or rows.shape[1:] != (self.row_stride,):
            raise MolkvError(
                f"out is {rows.dtype} {list(rows.shape)}, expected uint8 "
                f"[{len(ids)}, {self.row_stride}]",
                fix="pass one row of memory for every token",
            )
        index = np.zeros(len(ids), np.uint32)
        distinct = ctypes.c_size_t()
        self.library.call(
            "blob_read",
            self._open(),
            _address(ids),
            ctypes.c_size_t(len(ids)),
            _address(rows),
            _address(index),
            ctypes.byref(distinct),
        )
        return RowBatch(rows[: distinct.value], index.astype(np.int64))

    def read_row(self, token_id: int) -> RowPointers:
        """Read one row into memory of the blob's own: a decode step, which allocates nothing.

        Returns:
            the row; overwritten by the next call. Not for several threads at once.

        Raises:
            TokenIdError: the id lies outside the vocabulary.
            RowCorruptError: the row cannot be read whole or fails its CRC32C.
        """
        self._id.value = token_id
        self.library.call(
            "blob_read",
            self._open(),
            ctypes.byref(self._id),
            _ONE,
            self._row_pointers.rows,
            self._row_pointers.index,
            ctypes.byref(self._count),
        )
        return self._row_pointers

    def embeddings(self, rows: RowPointers, out: NDArray[np.float32]) -> None:
        """The input embeddings of some tokens.

        Args:
            rows: the tokens' rows, as `read_row` or `Prefetch.wait` gives them.
            out: float32 [at least tokens, d], contiguous; its first rows are filled.

        Raises:
            MolkvError: rows carry no embedding, or `out` is another array.
        """
        size = self.geometry.value_size
        fits = out.dtype == np.float32 and out.flags.c_contiguous and out.shape[1:] == (size,)
        if not fits or len(out) < rows.tokens:
            raise MolkvError(
                f"out is {out.dtype} {list(out.shape)}, expected float32 [{rows.tokens}, {size}]",
                fix="pass one row of memory for every token",
            )
        self.library.call(
            "blob_embeddings",
            self._open(),
            rows.rows,
            rows.index,
            ctypes.c_size_t(rows.tokens),
            _address(out),
        )

    def prefetch(self, token_ids: NDArray[np.int64] | Sequence[int]) -> Prefetch:
        """Start to read the rows of some tokens, in the background.

        Raises:
            TokenIdError: an id lies outside the vocabulary.
        """
        return Prefetch(self, np.ascontiguousarray(token_ids, np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> ctypes.c_void_p:
        if not self.pointer:
            raise MolkvError(
                f"{self.path}: read after close", fix="keep the blob open while reading"
            )
        return self.pointer


class Prefetch(Handle):
    """A read that is under way; made by `NativeBlob.prefetch`. Close it before the blob."""

    def __init__(self, blob: NativeBlob, token_ids: NDArray[np.int64]) -> None:
        super().__init__(blob.library, "prefetch_free")
        self._blob = blob  # which must outlive the read
        self.token_ids = token_ids
        self.library.call(
            "prefetch_start",
            blob._open(),
            _address(token_ids),
            ctypes.c_size_t(len(token_ids)),
            ctypes.byref(self.pointer),
        )

    def wait(self) -> RowPointers:
        """The rows, once they are there; valid until the prefetch is closed.

        Raises:
            RowCorruptError: a row cannot be read whole or fails its CRC32C.
        """
        rows, index, distinct = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_size_t()
        self.library.call(
            "prefetch_wait",
            self.pointer,
            ctypes.byref(rows),
            ctypes.byref(index),
            ctypes.byref(distinct),
        )
        return RowPointers(rows, index, len(self.token_ids), distinct.value)


_ONE = ctypes.c_size_t(1)


def _readers(readers: int) -> int:
    # 0 is the library's word for its default, and ctypes would wrap what is negative.
    if not 1 <= readers <= 64:
        raise MolkvError(f"readers is {readers}", fix="it must be 1 to 64")
    return readers


def _geometry(geometry: structures.Geometry, embedding_dtype: DataType) -> RowGeometry:
    fields = {name: getattr(geometry, name) for name, _ in geometry._fields_}
    for name in ("key_dtype", "value_dtype", "scale_dtype"):
        fields[name] = DataType(fields[name])
    return RowGeometry(**fields, embedding_dtype=embedding_dtype)


def _address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
