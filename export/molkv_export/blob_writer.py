"""Writes an expert blob row by row; the file appears under its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molkv_export.errors import ExportError
from molkv_runtime.errors import BlobFormatError, MolkvError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from molkv_runtime.blob_header import BlobHeader

__all__ = ["BlobWriter", "blob_file_name", "shard_ranges", "storage_error", "write_all"]

# EFBIG is what a file size limit, or a file system with small files, answers.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def blob_file_name(shard_index: int = 0, shard_count: int = 1) -> str:
    """The file name that docs/format.md "Shards" gives a shard.

    Args:
        shard_index: from 0.
        shard_count: files that make up the blob.

    Returns:
        `experts.molkv`, or for several files `experts-00001-of-00004.molkv` and so on.
    """
    if shard_count == 1:
        return "experts.molkv"
    return f"experts-{shard_index + 1:05d}-of-{shard_count:05d}.molkv"


def shard_ranges(vocabulary_size: int, shard_count: int) -> list[range]:
    """Splits a vocabulary into contiguous row ranges whose sizes differ by at most one.

    Args:
        vocabulary_size: rows over all shards.
        shard_count: files to make, 1 to vocabulary_size.

    Returns:
        The token ids of each shard.

    Raises:
        MolkvError: there are more shards than rows, or fewer than one.
    """
    if not 1 <= shard_count <= vocabulary_size:
        raise MolkvError(
            f"shard_count is {shard_count}, but a blob of {vocabulary_size} rows has "
            f"1 to {vocabulary_size} shards",
            fix="ask for fewer shards",
        )
    bounds = [vocabulary_size * shard // shard_count for shard in range(shard_count + 1)]
    return [range(first, end) for first, end in pairwise(bounds)]


def write_all(descriptor: int, data: memoryview, position: int | None = None) -> None:
    """Writes all bytes, whatever part of them the system takes at once.

    Args:
        descriptor: an open file.
        data: bytes.
        position: where to; by default where the descriptor stands.

    Raises:
        OSError: the system refuses.
    """
    while data:
        if position is None:
            written = os.write(descriptor, data)
        else:
            written = os.pwrite(descriptor, data, position)
            position += written
        data = data[written:]


def storage_error(path: Path, size: int, error: OSError) -> ExportError:
    """What to tell about a blob's file that the system does not write.

    Args:
        path: the file.
        size: bytes that it is to have.
        error: the system's.
    """
    if error.errno in _NO_ROOM:
        return ExportError(
            f"{path}: no room for the expert blob, which needs {size} bytes: {error.strerror}",
            fix="free that much in this folder's file system or write elsewhere",
        )
    return ExportError(f"{path}: cannot be written: {error.strerror}", fix="check the storage")


class BlobWriter:
    """Context manager that writes one file of a blob.

    Inside the `with` block the bytes go to a hidden file beside `path`. Leaving the block
    normally makes them durable and renames the file; leaving it by an exception removes it, and
    whatever was under `path` before stays.

    Args:
        path: the final file; an existing one is replaced.
        header: the file's header; its row range says how many rows must follow.

    Raises:
        BlobFormatError: the header breaks a rule of docs/format.md.
    """

    def __init__(self, path: str | os.PathLike[str], header: BlobHeader) -> None:
        self.path = Path(path)
        self.header = header
        self._page = header.pack()
        self._layout = header.layout(str(self.path))
        self._rows_written = 0
        self._descriptor = -1
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(6)}.partial")

    @property
    def next_row(self) -> int:
        """Token id of the row that the next call of `write_rows` starts with."""
        return self.header.first_row + self._rows_written

    def write_rows(self, rows: NDArray[np.uint8], *, first_row: int | None = None) -> None:
        """Appends rows in order of token id.

        Args:
            rows: uint8 [n, row_stride], as `RowLayout.pack` makes them.
            first_row: token id of the first of them, if the caller wants its order checked.

        Raises:
            BlobFormatError: the rows have another shape or type, are out of order, are more than
                the header states, or carry a wrong checksum.
            ExportError: the storage is full.
            MolkvError: the writer is not inside its `with` block.
        """
        if self._descriptor < 0:
            raise MolkvError(f"{self.path}: write outside of the `with` block", fix="use `with`")
        if first_row is not None and first_row != self.next_row:
            raise BlobFormatError(
                f"{self.path}: first_row is {first_row}, but row {self.next_row} is next",
                fix="write rows in order of token id, each once",
            )
        good = self._layout.check_crc(rows)
        if not good.all():
            raise BlobFormatError(
                f"{self.path}: row {self.next_row + int(np.argmin(good))} has a wrong CRC32C",
                fix="pass rows as RowLayout.pack makes them",
            )
        if self._rows_written + len(rows) > self.header.row_count:
            raise BlobFormatError(
                f"{self.path}: row_count is {self.header.row_count}, "
                f"but {self._rows_written + len(rows)} rows were passed",
                fix="make the header with the number of rows that will be written",
            )
        self._write(np.ascontiguousarray(rows).reshape(-1).data)
        self._rows_written += len(rows)

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._temporary, flags, 0o666)
        except OSError as error:
            raise ExportError(
                f"{self.path}: cannot create a file beside it: {error.strerror}",
                fix="check that the folder exists and is writable",
            ) from error
        try:
            self._write(memoryview(self._page))
            self._write(memoryview(bytes(self.header.data_offset - len(self._page))))
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._require_all_rows()
            self._commit()
        except BaseException:
            self._discard()
            raise

    def _require_all_rows(self) -> None:
        if self._rows_written != self.header.row_count:
            raise BlobFormatError(
                f"{self.path}: row_count is {self.header.row_count}, "
                f"but {self._rows_written} rows were written",
                fix="write every row before leaving the `with` block",
            )

    def _commit(self) -> None:
        # Data first, then the name, then the folder entry: after a power cut the name either does
        # not exist or holds the whole file.
        try:
            os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            self._temporary.replace(self.path)
        except OSError as error:
            raise self._storage_error(error) from error
        # The file is whole by now; a file system that cannot sync folders is no reason to fail.
        with contextlib.suppress(OSError):
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _write(self, data: memoryview) -> None:
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: OSError) -> ExportError:
        return storage_error(self.path, self.header.file_size, error)

    def _discard(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._temporary.unlink(missing_ok=True)
