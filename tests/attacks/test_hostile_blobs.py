"""Every hostile blob is refused with a typed error that names file, field and fix, in no memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from molkv_runtime.blob import Blob
from molkv_runtime.errors import BlobFormatError, MolkvError, RowCorruptError
from tests.attacks.blob_files import PAGE, ROW_ERROR, ROWS, Attack, attacks, edited, valid_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

ERRORS: dict[str, type[MolkvError]] = {
    "BlobFormatError": BlobFormatError,
    "RowCorruptError": RowCorruptError,
}


def all_attacks() -> list[Attack]:
    with tempfile.TemporaryDirectory() as folder:
        return attacks(Path(folder))


def open_descriptors() -> int:
    # The listing itself opens one descriptor, the same one each time.
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    def stop(*_: object) -> None:
        pytest.fail("opening or reading hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def use(path: Path) -> None:
    with Blob.open(path) as blob:
        blob.read(range(blob.vocabulary_size))


@pytest.mark.parametrize("attack", all_attacks(), ids=lambda attack: attack.name)
def test_every_hostile_blob_is_refused_with_file_field_and_fix(
    attack: Attack, tmp_path: Path
) -> None:
    path = tmp_path / f"{attack.name}.molkv"
    attack.write(path)
    with pytest.raises(ERRORS[attack.error]) as caught:
        use(path)
    assert type(caught.value) is ERRORS[attack.error]
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.removeprefix(f"{path}: ").removeprefix("row of ").startswith(attack.field)
    assert any(mark in message for mark in (" is ", "0x"))
    assert len(caught.value.fix) > 10


def test_refusing_a_hostile_blob_allocates_less_than_a_megabyte(tmp_path: Path) -> None:
    for attack in all_attacks():
        path = tmp_path / f"{attack.name}.molkv"
        attack.write(path)
        tracemalloc.start()
        try:
            with pytest.raises(MolkvError):
                use(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2**20, (attack.name, peak)


def test_a_value_that_breaks_a_rule_is_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "experts.molkv"
    path.write_bytes(edited(valid_bytes(tmp_path), layers=2**32 - 1, experts=2**32 - 1))
    with pytest.raises(BlobFormatError, match="layers is 4294967295, but must be 1 to 1024"):
        Blob.open(path)


def test_a_hostile_row_is_refused_only_when_it_is_read(tmp_path: Path) -> None:
    for attack in all_attacks():
        if attack.error != ROW_ERROR:
            continue
        path = tmp_path / f"{attack.name}.molkv"
        attack.write(path)
        with Blob.open(path) as blob:
            bad = int(attack.field.removeprefix("token id ").removesuffix(":"))
            others = [token_id for token_id in range(ROWS) if token_id != bad]
            assert len(blob.read(others).rows) == ROWS - 1
            with pytest.raises(RowCorruptError):
                blob.read([bad])
        with Blob.open(path, verify_rows=False) as blob:
            assert len(blob.read([bad]).rows) == 1


def test_a_device_and_a_pipe_descriptor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BlobFormatError, match="/dev/zero: file type is 'c'"):
        Blob.open("/dev/zero")
    reader, writer = os.pipe()
    try:
        with pytest.raises(BlobFormatError, match="file type is 'p'"):
            Blob.from_descriptor(reader)
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(BlobFormatError, match="cannot be opened"):
        Blob.open(tmp_path / "missing.molkv")
    with pytest.raises(BlobFormatError, match="cannot be opened"):
        Blob.open("nul\0byte")


def test_a_sparse_file_of_256_gibibytes_opens_by_its_header_and_its_empty_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 2**31 - 1
    path = tmp_path / "sparse.molkv"
    path.write_bytes(edited(valid_bytes(tmp_path), row_count=rows, vocabulary_size=rows))
    os.truncate(path, PAGE + rows * 128)
    asked_for: list[int] = []
    genuine = os.pread

    def recording(descriptor: int, count: int, offset: int) -> bytes:
        asked_for.append(count)
        return genuine(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", recording)
    tracemalloc.start()
    try:
        blob = Blob.open(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0 < sum(asked_for) <= PAGE
    assert peak < 1 << 20
    with blob:
        blob.read(range(ROWS))
        with pytest.raises(RowCorruptError, match=f"token id {rows - 1}"):
            blob.read([rows - 1])


def test_no_descriptor_leaks_when_a_blob_is_refused(tmp_path: Path) -> None:
    before = open_descriptors()
    for attack in all_attacks():
        path = tmp_path / f"{attack.name}.molkv"
        attack.write(path)
        with pytest.raises(MolkvError):
            use(path)
    assert open_descriptors() == before


def test_the_script_writes_every_file_and_what_to_expect(tmp_path: Path) -> None:
    script = Path(__file__).with_name("blob_files.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=60, env=environment)
    expected = json.loads((tmp_path / "expected.json").read_text())
    assert len(expected) == len(all_attacks())
    assert all((tmp_path / name).exists() for name in expected)
    for valid in ("valid.molkv", "valid-page-rows.molkv"):
        use(tmp_path / valid)
