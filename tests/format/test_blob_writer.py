"""A file has its final name only when it is whole, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from molkv_export.blob_writer import BlobWriter, blob_file_name, shard_ranges
from molkv_runtime.blob import Blob
from molkv_runtime.blob_header import BlobHeader
from molkv_runtime.errors import BlobFormatError, MolkvError
from tests.format.strategies import IDENTITY, SMALL, random_rows

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 10
HEADER = BlobHeader.of(SMALL, vocabulary_size=ROWS, identity=IDENTITY)
BLOB = random_rows(SMALL, ROWS)


def test_rows_written_in_pieces_are_the_same_file(tmp_path: Path) -> None:
    for name, step in (("whole", ROWS), ("pieces", 3)):
        with BlobWriter(tmp_path / name, HEADER) as writer:
            for first in range(0, ROWS, step):
                assert writer.next_row == first
                writer.write_rows(BLOB[first : first + step], first_row=first)
    whole = (tmp_path / "whole").read_bytes()
    assert whole == (tmp_path / "pieces").read_bytes()
    assert whole == HEADER.pack() + BLOB.tobytes()
    assert len(whole) == HEADER.file_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pieces", "whole"]


def test_rows_of_any_memory_order_are_written_right(tmp_path: Path) -> None:
    path = tmp_path / "experts.molkv"
    with BlobWriter(path, HEADER) as writer:
        writer.write_rows(BLOB[::-1][::-1])
    assert path.read_bytes()[16384:] == BLOB.tobytes()


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with BlobWriter(tmp_path / "experts.molkv", HEADER) as writer:
        writer.write_rows(BLOB)
    assert (tmp_path / "experts.molkv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_exception_leaves_no_file_and_keeps_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "experts.molkv"

    def stop_half_way(error: BaseException) -> None:
        with BlobWriter(path, HEADER) as writer:
            writer.write_rows(BLOB)
            raise error

    with pytest.raises(KeyboardInterrupt):
        stop_half_way(KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []
    path.write_text("older")
    with pytest.raises(ZeroDivisionError):
        stop_half_way(ZeroDivisionError())
    assert [entry.name for entry in tmp_path.iterdir()] == ["experts.molkv"]
    assert path.read_text() == "older"


def test_missing_rows_leave_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(BlobFormatError, match="row_count is 10, but 9 rows were written"),
        BlobWriter(tmp_path / "experts.molkv", HEADER) as writer,
    ):
        writer.write_rows(BLOB[:9])
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    damaged = BLOB.copy()
    damaged[4, 3] ^= 1
    for rows, first_row, message in (
        (BLOB[:, :64], None, "array is"),
        (BLOB.view("i1"), None, "array is"),
        (BLOB[1:], 1, "first_row is 1, but row 0 is next"),
        (damaged, None, "row 4 has a wrong CRC32C"),
        (random_rows(SMALL, ROWS + 1), None, "row_count is 10, but 11 rows were passed"),
    ):
        with (
            pytest.raises(BlobFormatError, match=message),
            BlobWriter(tmp_path / "experts.molkv", HEADER) as writer,
        ):
            writer.write_rows(rows, first_row=first_row)
    assert list(tmp_path.iterdir()) == []


def test_writing_outside_the_with_block_is_refused(tmp_path: Path) -> None:
    writer = BlobWriter(tmp_path / "experts.molkv", HEADER)
    with pytest.raises(MolkvError, match="outside"):
        writer.write_rows(BLOB)
    with writer:
        writer.write_rows(BLOB)
    with pytest.raises(MolkvError, match="outside"):
        writer.write_rows(BLOB)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "experts.molkv"
    with pytest.raises(MolkvError, match=f"{path}: cannot create"), BlobWriter(path, HEADER):
        pass


def test_full_storage_names_the_bytes_needed_and_leaves_nothing(tmp_path: Path) -> None:
    # A file size limit makes the kernel refuse a real write half way, on any machine.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (16384 + 300, 1000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with (
                pytest.raises(MolkvError, match=rf"experts\.molkv: no room .* {16384 + 1280} byte"),
                BlobWriter(tmp_path / "experts.molkv", HEADER) as writer,
            ):
                writer.write_rows(BLOB)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_every_way_to_learn_of_full_storage_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        with BlobWriter(tmp_path / "experts.molkv", HEADER) as writer:
            monkeypatch.setattr(os, call, failing)
            writer.write_rows(BLOB)

    with pytest.raises(MolkvError, match="no room"):
        fill()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from tests.format.test_blob_writer import BLOB, HEADER, BlobWriter
with BlobWriter(sys.argv[1], HEADER) as writer:
    writer.write_rows(BLOB)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "experts.molkv"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=False, timeout=60, env=environment
    )
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    with BlobWriter(path, HEADER) as writer:
        writer.write_rows(BLOB)
    with Blob.open(path) as blob:
        assert len(blob.read(range(ROWS)).rows) == ROWS


def test_shards_are_named_from_one_and_cover_all_rows() -> None:
    assert blob_file_name() == "experts.molkv"
    assert blob_file_name(1, 12) == "experts-00002-of-00012.molkv"
    assert shard_ranges(10, 3) == [range(3), range(3, 6), range(6, 10)]
    for count in (0, 11):
        with pytest.raises(MolkvError, match=f"shard_count is {count}"):
            shard_ranges(10, count)
