"""The files of an expert blob while it is made: every row has its place from the beginning."""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molkv_export.blob_writer import blob_file_name, storage_error, write_all
from molkv_runtime.blob_header import HEADER_SIZE, BlobHeader

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BlobFiles"]

# What file systems without preallocation answer.
_NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class BlobFiles:
    """A blob's files, whose rows may be written in any order and by several processes.

    No file is kept open: a blob may have more files than a process may open.

    Args:
        folder: where they lie.
        headers: of all files, in order.

    Attributes:
        paths: of all files, in order.
        layout: of the rows.
    """

    def __init__(self, folder: Path, headers: Sequence[BlobHeader]) -> None:
        self.paths = [folder / blob_file_name(index, len(headers)) for index in range(len(headers))]
        self.layout = headers[0].layout()
        self._headers = headers
        self._first_rows = [header.first_row for header in headers]

    def create(self) -> None:
        """Make the files: headers, and room for all rows, so that storage cannot run out later.

        Raises:
            ExportError: the storage does not suffice, or a file is there already.
        """
        for path, header in zip(self.paths, self._headers, strict=True):
            try:
                _create(path, header)
            except OSError as error:
                raise storage_error(path, header.file_size, error) from error

    def are_there(self) -> bool:
        """Whether `create` has made exactly these files."""
        try:
            return all(
                path.stat().st_size == header.file_size and _first_page(path) == header.pack()
                for path, header in zip(self.paths, self._headers, strict=True)
            )
        except OSError:
            return False

    def write(self, first_row: int, rows: NDArray[np.uint8]) -> None:
        """Write rows at their place, and return when they are on the storage.

        Args:
            first_row: token id of the first.
            rows: uint8 [n, row_stride], as `RowLayout.pack` makes them.

        Raises:
            ExportError: the storage is full or fails.
        """
        data = np.ascontiguousarray(rows).reshape(-1).data
        stride, end = self.layout.row_stride, first_row + len(rows)
        row = first_row
        while row < end:
            shard = bisect_right(self._first_rows, row) - 1
            header = self._headers[shard]
            stop = min(end, header.first_row + header.row_count)
            part = data[(row - first_row) * stride : (stop - first_row) * stride]
            position = header.data_offset + (row - header.first_row) * stride
            try:
                _write(self.paths[shard], part, position)
            except OSError as error:
                raise storage_error(self.paths[shard], header.file_size, error) from error
            row = stop


def _first_page(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER_SIZE)


def _create(path: Path, header: BlobHeader) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _reserve(descriptor, header.file_size)
        write_all(descriptor, memoryview(header.pack()), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, size: int) -> None:
    try:
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(descriptor, 0, size)
            return
    except OSError as error:
        if error.errno not in _NO_PREALLOCATION:
            raise
    os.ftruncate(descriptor, size)


def _write(path: Path, data: memoryview, position: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        write_all(descriptor, data, position)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
