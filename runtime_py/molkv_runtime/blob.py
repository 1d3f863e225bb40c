"""Reads expert rows by token id, one positional read a row (docs/format.md "Reading")."""

from __future__ import annotations

import os
import stat
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from molkv_runtime.blob_header import HEADER_SIZE, BlobHeader
from molkv_runtime.errors import BlobFormatError, MolkvError, RowCorruptError, TokenIdError
from molkv_runtime.row_geometry import format_error
from molkv_runtime.row_layout import crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    from molkv_runtime.row_geometry import RowGeometry
    from molkv_runtime.row_layout import RowLayout

__all__ = ["Blob", "ReadStats", "RowBatch"]

# O_NONBLOCK has no effect on regular files, and keeps open() from waiting for a pipe's writer
# before the file type can be refused.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_DAMAGED_ROW: Final = "the file is damaged: copy the bundle again or export it again"


@dataclass(frozen=True)
class RowBatch:
    """The rows of one read.

    Attributes:
        rows: uint8 [unique, row_stride], in ascending order of token id.
        index: int64 [tokens], position of each token's row in `rows`.
    """

    rows: NDArray[np.uint8]
    index: NDArray[np.int64]


@dataclass(frozen=True)
class ReadStats:
    """What a blob has read since it was opened.

    Attributes:
        reads: positional reads issued; more than `rows` only if the system returned short reads.
        rows: rows read.
        bytes: bytes read.
        seconds: time inside `Blob.read`, checksums included, summed over threads.
    """

    reads: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Shard:
    """One open file: `start` is where the blob begins in it, `owned` whether we close it."""

    descriptor: int
    start: int
    name: str
    header: BlobHeader
    owned: bool


class Blob:
    """An open expert blob of one or several files.

    Make one with `Blob.open` or `Blob.from_descriptor`. Opening reads the header pages only.
    `read` may be called from several threads at once; `close` must not race with it.

    Attributes:
        header: header of the first file; geometry, identity and vocabulary are the blob's.
        layout: where the sections of a row lie.
        verify_rows: whether every row's CRC32C is checked.
    """

    def __init__(self, shards: Sequence[_Shard], *, verify_rows: bool) -> None:
        self._shards = tuple(sorted(shards, key=lambda shard: shard.header.shard_index))
        _require_complete(self._shards)
        self._first_rows = [shard.header.first_row for shard in self._shards]
        self._stats = ReadStats()
        self._stats_lock = threading.Lock()
        self._closed = False
        self.header = self._shards[0].header
        self.layout: RowLayout = self.header.layout(self._shards[0].name)
        self.verify_rows = verify_rows

    @classmethod
    def open(
        cls,
        path_or_paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        verify_rows: bool = True,
    ) -> Blob:
        """Opens a blob by path.

        Args:
            path_or_paths: the only file, or all shards in any order.
            verify_rows: check every row's CRC32C at every read.

        Returns:
            The open blob, to be closed by the caller.

        Raises:
            BlobFormatError: a file cannot be opened, is not regular, or breaks docs/format.md.
        """
        single = isinstance(path_or_paths, str | os.PathLike)
        paths = [path_or_paths] if single else list(path_or_paths)  # type: ignore[arg-type]
        if not paths:
            raise BlobFormatError("expert blob: the list of files is empty", fix="pass its shards")
        shards: list[_Shard] = []
        try:
            for path in paths:
                name = os.fspath(path)  # type: ignore[arg-type]
                shards.append(_open_file(name))
            return cls(shards, verify_rows=verify_rows)
        except BaseException:
            for shard in shards:
                os.close(shard.descriptor)
            raise

    @classmethod
    def from_descriptor(
        cls,
        fd: int,
        offset: int = 0,
        length: int | None = None,
        *,
        verify_rows: bool = True,
        name: str | None = None,
    ) -> Blob:
        """Opens a blob that lies inside an open file, as Android hands out.

        Args:
            fd: descriptor of a regular file; stays the caller's and must outlive the blob.
            offset: byte position of the blob in that file.
            length: bytes of the blob; by default up to the end of the file.
            verify_rows: check every row's CRC32C at every read.
            name: what messages call the file.

        Returns:
            The open blob.

        Raises:
            BlobFormatError: the descriptor, the range or the blob breaks a rule.
        """
        shard = _read_shard(fd, offset, length, name or f"descriptor {fd}", owned=False)
        return cls([shard], verify_rows=verify_rows)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the blob; token ids are 0 to vocabulary_size - 1."""
        return self.header.vocabulary_size

    @property
    def geometry(self) -> RowGeometry:
        """What a row holds."""
        return self.header.geometry

    @property
    def identity(self) -> bytes:
        """32 bytes: SHA-256 over the weights of the checkpoint that the blob belongs to."""
        return self.header.identity

    @property
    def stats(self) -> ReadStats:
        """A snapshot of what has been read so far."""
        with self._stats_lock:
            return self._stats

    def read(self, token_ids: ArrayLike) -> RowBatch:
        """Reads the rows of some tokens, each distinct one once, in file order.

        Args:
            token_ids: integers [tokens], in any order, repeats allowed, possibly empty.

        Returns:
            The distinct rows and where each token's is.

        Raises:
            TokenIdError: an id is not an integer or lies outside the vocabulary; nothing is read.
            RowCorruptError: a row cannot be read whole or fails its CRC32C.
            MolkvError: the blob is closed.
        """
        started = time.perf_counter()
        if self._closed:
            raise MolkvError(
                "expert blob: read after close", fix="keep the blob open while reading"
            )
        ids, index = np.unique(self._checked_ids(token_ids), return_inverse=True)
        stride = self.layout.row_stride
        # Bounded by the files' own length: ids are distinct, below the vocabulary size, and every
        # file was found long enough for all of its rows.
        rows = np.empty((len(ids), stride), np.uint8)
        flat = rows.reshape(-1).data
        reads = 0
        for position, token_id in enumerate(ids.tolist()):
            shard = self._shards[bisect_right(self._first_rows, token_id) - 1]
            target = flat[position * stride : (position + 1) * stride]
            reads += _read_row(shard, token_id, target)
            if self.verify_rows:
                self._verify(shard, token_id, rows[position])
        elapsed = time.perf_counter() - started
        with self._stats_lock:
            before = self._stats
            self._stats = ReadStats(
                before.reads + reads,
                before.rows + len(ids),
                before.bytes + rows.nbytes,
                before.seconds + elapsed,
            )
        return RowBatch(rows, index.astype(np.int64, copy=False))

    def _checked_ids(self, token_ids: ArrayLike) -> NDArray[np.int64]:
        ids: NDArray[Any] = np.asarray(token_ids)
        if ids.ndim != 1:
            raise TokenIdError(
                f"token ids have {ids.ndim} dimensions, but must have 1", fix="pass a flat list"
            )
        if ids.size == 0:
            return np.empty(0, np.int64)
        if ids.dtype.kind not in "iu":
            raise TokenIdError(
                f"token ids are of type {ids.dtype.name}, but must be integers of up to 64 bits",
                fix="pass the tokenizer's ids unchanged",
            )
        for extreme in (int(ids.min()), int(ids.max())):
            if not 0 <= extreme < self.vocabulary_size:
                raise TokenIdError(
                    f"token id {extreme} is outside the vocabulary, "
                    f"0 to {self.vocabulary_size - 1}",
                    fix="use the tokenizer of this bundle",
                )
        return ids.astype(np.int64, copy=False)

    def _verify(self, shard: _Shard, token_id: int, row: NDArray[np.uint8]) -> None:
        if self.layout.check_crc(row[np.newaxis])[0]:
            return
        stored = int(self.layout.stored_checksums(row[np.newaxis])[0])
        computed = crc32c(row[: self.layout.row_size - 4])
        raise RowCorruptError(
            f"{shard.name}: row of token id {token_id}: stored CRC32C is {stored:#010x}, "
            f"but the row's bytes give {computed:#010x}",
            fix=_DAMAGED_ROW,
        )

    def close(self) -> None:
        """Closes the files that `open` opened; a descriptor handed in stays open. Repeatable."""
        if self._closed:
            return
        self._closed = True
        for shard in self._shards:
            if shard.owned:
                os.close(shard.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open_file(name: str) -> _Shard:
    try:
        descriptor = os.open(name, _OPEN_FLAGS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BlobFormatError(
            f"{name}: the file cannot be opened: {reason}", fix="check the path and its permissions"
        ) from error
    try:
        return _read_shard(descriptor, 0, None, name, owned=True)
    except BaseException:
        os.close(descriptor)
        raise


def _read_shard(
    descriptor: int, start: int, length: int | None, name: str, *, owned: bool
) -> _Shard:
    """Reads and validates one file's header page and checks its length against it."""
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        raise BlobFormatError(
            f"{name}: the descriptor cannot be used: {error.strerror}", fix="pass an open file"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        kind = stat.filemode(status.st_mode)[0]
        rule = "must be a regular file ('-'), which can be read at any position"
        raise format_error(name, "file type", repr(kind), rule, fix="pass the blob file itself")
    if not 0 <= start <= status.st_size:
        rule = f"the file has {status.st_size} bytes"
        raise format_error(name, "offset", start, rule, fix="pass where the blob starts")
    available = status.st_size - start
    size = available if length is None else length
    if not 0 <= size <= available:
        rule = f"the file has {available} bytes from offset {start}"
        raise format_error(name, "length", size, rule, fix="pass the blob's length")
    header = BlobHeader.unpack(_read_bytes(descriptor, min(size, HEADER_SIZE), start, name), name)
    if size != header.file_size:
        rule = f"data_offset + row_count * row_stride is {header.file_size}"
        fix = "the copy is incomplete or has bytes appended: copy the file again"
        raise format_error(name, "file length", size, rule, fix=fix)
    # A gap of arbitrary bytes could hold a second file format; it is at most 1 MiB.
    gap = _read_bytes(descriptor, header.data_offset - HEADER_SIZE, start + HEADER_SIZE, name)
    if any(gap):
        raise format_error(name, "gap before data_offset", "not zero", "must be all zero")
    return _Shard(descriptor, start, name, header, owned)


def _read_bytes(descriptor: int, count: int, position: int, name: str) -> bytes:
    pieces = bytearray()
    while len(pieces) < count:
        try:
            piece = os.pread(descriptor, count - len(pieces), position + len(pieces))
        except OSError as error:
            raise BlobFormatError(
                f"{name}: the header cannot be read: {error.strerror}", fix="check the storage"
            ) from error
        if not piece:
            rule = f"the file ended at byte {position + len(pieces)} while being opened"
            raise format_error(name, "header bytes needed", count, rule)
        pieces += piece
    return bytes(pieces)


def _read_row(shard: _Shard, token_id: int, target: memoryview) -> int:
    """Fills `target` with a row; returns the number of reads, 1 unless the system read short."""
    header = shard.header
    position = shard.start + header.data_offset
    position += (token_id - header.first_row) * header.row_stride
    filled = 0
    reads = 0
    while filled < len(target):
        try:
            count = os.preadv(shard.descriptor, [target[filled:]], position + filled)
        except OSError as error:
            raise RowCorruptError(
                f"{shard.name}: row of token id {token_id} at byte {position} cannot be read: "
                f"{error.strerror}",
                fix="check the storage, then copy the bundle again",
            ) from error
        reads += 1
        if count == 0:
            raise RowCorruptError(
                f"{shard.name}: row of token id {token_id} at byte {position} has "
                f"{filled} bytes left of {len(target)}: the file was cut while open",
                fix=_DAMAGED_ROW,
            )
        filled += count
    return reads


def _require_complete(shards: Sequence[_Shard]) -> None:
    """Checks that files in order of their shard index form one whole blob."""
    first = shards[0]
    expected = first.header.shard_count
    fix = "pass all shards of one export, each once"
    if len(shards) != expected:
        rule = f"{len(shards)} of them were given"
        raise format_error(first.name, "shard_count", expected, rule, fix=fix)
    shared = ("shard_count", "vocabulary_size", "row_stride", "identity", "geometry")
    next_row = 0
    for index, shard in enumerate(shards):
        header = shard.header
        if header.shard_index != index:
            rule = f"shard {index} is missing"
            raise format_error(shard.name, "shard_index", header.shard_index, rule, fix=fix)
        for field in shared:
            value, wanted = getattr(header, field), getattr(first.header, field)
            if value != wanted:
                rule = f"{first.name} has {wanted}"
                raise format_error(shard.name, field, value, rule, fix=fix)
        if header.first_row != next_row:
            rule = f"the shard before ends at {next_row}"
            raise format_error(shard.name, "first_row", header.first_row, rule, fix=fix)
        next_row = header.first_row + header.row_count
