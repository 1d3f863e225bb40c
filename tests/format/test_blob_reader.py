"""Reading gives exactly the rows that were written, each distinct one read once."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molkv_runtime.blob import Blob, ReadStats
from molkv_runtime.errors import BlobFormatError, MolkvError, RowCorruptError, TokenIdError
from tests.attacks.blob_files import edited
from tests.format.strategies import IDENTITY, SMALL, geometries, random_rows, write_shards

if TYPE_CHECKING:
    from molkv_runtime.row_layout import RowGeometry

ROWS = 11


@given(
    geometries(),
    st.integers(1, 4),
    st.lists(st.integers(0, ROWS - 1), max_size=30),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_any_tokens_from_any_shards_are_the_rows_that_were_written(
    geometry: RowGeometry, shard_count: int, ids: list[int], seed: int
) -> None:
    rows = random_rows(geometry, ROWS, seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_shards(Path(folder), geometry, rows, shard_count)
        with Blob.open(paths[::-1]) as blob:
            batch = blob.read(ids)
            stats = blob.stats
    assert batch.rows.dtype == np.uint8
    assert batch.index.dtype == np.int64
    assert batch.rows[batch.index].tobytes() == rows[ids].tobytes()
    assert batch.rows.tobytes() == rows[sorted(set(ids))].tobytes()
    assert stats.reads == stats.rows == len(set(ids))
    assert stats.bytes == batch.rows.nbytes


def test_one_read_call_of_one_stride_is_made_for_each_distinct_id_in_file_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    calls = []
    genuine = os.preadv

    def recording(fd: int, buffers: list[memoryview], offset: int) -> int:
        calls.append((offset, sum(len(buffer) for buffer in buffers)))
        return genuine(fd, buffers, offset)

    with Blob.open(path) as blob:
        monkeypatch.setattr(os, "preadv", recording)
        blob.read([7, 2, 7, 2, 2, 5])
    assert calls == [(16384 + row * 128, 128) for row in (2, 5, 7)]


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(SMALL, ROWS)
    (path,) = write_shards(tmp_path, SMALL, rows)
    genuine = os.preadv

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        return genuine(fd, [buffers[0][:50]], offset)

    monkeypatch.setattr(os, "preadv", short)
    with Blob.open(path) as blob:
        assert blob.read([3]).rows.tobytes() == rows[3].tobytes()
        assert blob.stats.reads == 3


def test_a_file_cut_while_open_is_reported_for_the_row(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    with Blob.open(path) as blob:
        os.truncate(path, 16384 + 10 * 128 + 40)
        blob.read([9])
        with pytest.raises(RowCorruptError, match=r"token id 10 .* 40 bytes left of 128"):
            blob.read([10])


def test_a_device_error_is_reported_for_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))

    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with Blob.open(path) as blob:
        monkeypatch.setattr(os, "preadv", failing)
        with pytest.raises(RowCorruptError, match=r"token id 4 at byte 16896 cannot be read"):
            blob.read([4])


@pytest.mark.parametrize("bad", [-1, ROWS, 2**31, 2**63, -(2**63)])
def test_an_id_outside_the_vocabulary_is_named_and_nothing_is_read(
    tmp_path: Path, bad: int
) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    with Blob.open(path) as blob:
        dtype = np.uint64 if bad == 2**63 else np.int64
        with pytest.raises(TokenIdError, match=rf"token id {bad} is outside .* 0 to 10"):
            blob.read(np.array([1, bad], dtype))
        assert blob.stats == ReadStats()


@pytest.mark.parametrize("bad", [[1.0], [True], ["1"], [2**70], [[1]], 1, [None]])
def test_ids_that_are_no_flat_list_of_integers_are_refused(tmp_path: Path, bad: object) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    with Blob.open(path) as blob, pytest.raises(TokenIdError):
        blob.read(bad)  # type: ignore[arg-type]


def test_a_blob_inside_a_larger_file_is_read_through_a_descriptor(tmp_path: Path) -> None:
    rows = random_rows(SMALL, ROWS)
    (path,) = write_shards(tmp_path, SMALL, rows)
    content = path.read_bytes()
    package = tmp_path / "package.apk"
    package.write_bytes(b"x" * 1001 + content + b"y" * 77)
    with package.open("rb") as file:
        with Blob.from_descriptor(file.fileno(), 1001, len(content), name="asset") as blob:
            assert blob.read([0, 10]).rows.tobytes() == rows[[0, 10]].tobytes()
        assert file.read(1) == b"x", "the caller's descriptor stays open"
        for offset, length in ((1001, None), (1001, len(content) + 1), (1001, len(content) - 1)):
            with pytest.raises(BlobFormatError, match="asset: file length is"):
                Blob.from_descriptor(file.fileno(), offset, length, name="asset")
        for offset, length in ((-1, 5), (10**9, None), (0, 10**9), (0, -1)):
            with pytest.raises(BlobFormatError, match=r"(offset|length) is"):
                Blob.from_descriptor(file.fileno(), offset, length)
        number = file.fileno()
    with pytest.raises(BlobFormatError, match=f"descriptor {number}: "):
        Blob.from_descriptor(number)


def test_many_threads_read_right_rows_and_are_all_counted(tmp_path: Path) -> None:
    rows = random_rows(SMALL, ROWS)
    (path,) = write_shards(tmp_path, SMALL, rows)
    failures: list[object] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(50):
            ids = generator.permutation(ROWS)[:6]
            batch = blob.read(ids)
            if batch.rows[batch.index].tobytes() != rows[ids].tobytes():
                failures.append(ids)

    with Blob.open(path) as blob:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert blob.stats.rows == 8 * 50 * 6
        assert blob.stats.seconds > 0


def test_shards_that_do_not_make_one_blob_are_refused(tmp_path: Path) -> None:
    rows = random_rows(SMALL, ROWS)
    for name in ("ours", "theirs", "wide"):
        (tmp_path / name).mkdir()
    ours = write_shards(tmp_path / "ours", SMALL, rows, 3)
    theirs = write_shards(tmp_path / "theirs", SMALL, rows, 3, identity=bytes(32))
    other = dataclasses.replace(SMALL, value_size=7, value_group_size=7)
    wide = write_shards(tmp_path / "wide", other, random_rows(other, ROWS), 3)
    for paths, message in (
        (ours[:1], "shard_count is 3, but 1 of them were given"),
        (ours[:2], "shard_count is 3, but 2 of them were given"),
        ([ours[0], ours[0], ours[2]], "shard_index is 0, but shard 1 is missing"),
        ([ours[0], theirs[1], ours[2]], "00002-of-00003.molkv: identity is "),
        ([ours[0], wide[1], ours[2]], "00002-of-00003.molkv: geometry is "),
        ([], "list of files is empty"),
    ):
        with pytest.raises(BlobFormatError, match=message):
            Blob.open(paths)
    with pytest.raises(BlobFormatError, match="shard_count is 3"):
        Blob.open(ours[0])


def test_shards_with_a_hole_between_them_are_refused(tmp_path: Path) -> None:
    even = write_shards(tmp_path, SMALL, random_rows(SMALL, 9), 3)
    # The middle shard claims to start one row later: ranges overlap or leave a hole.
    even[1].write_bytes(edited(even[1].read_bytes(), first_row=4))
    with pytest.raises(BlobFormatError, match="first_row is 4, but the shard before ends at 3"):
        Blob.open(even)


def test_a_closed_blob_refuses_to_read_and_closes_twice(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    blob = Blob.open(str(path))
    assert blob.vocabulary_size == ROWS
    assert blob.identity == IDENTITY
    assert blob.layout.geometry == blob.header.geometry == SMALL
    blob.close()
    blob.close()
    with pytest.raises(MolkvError, match="after close"):
        blob.read([1])


def test_opening_reads_the_header_page_whatever_the_number_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[tuple[int, int]] = []
    genuine = os.pread

    def recording(descriptor: int, count: int, offset: int) -> bytes:
        asked_for.append((count, offset))
        return genuine(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", recording)
    monkeypatch.setattr(os, "preadv", None)  # what rows are read with
    seen = []
    for count in (20, 2000):
        (tmp_path / str(count)).mkdir()
        (path,) = write_shards(tmp_path / str(count), SMALL, random_rows(SMALL, count))
        asked_for.clear()
        with Blob.open(path) as blob:
            page = blob.header.data_offset
        seen.append(list(asked_for))
    assert seen[0] == seen[1]
    assert sum(count for count, _ in seen[0]) == page
