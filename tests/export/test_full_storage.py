"""Storage that runs out: known before anything is computed, or a named file and nothing left."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from molkv_export import ExportError
from molkv_export.blob_files import BlobFiles
from molkv_export.expert_blob import blob_headers
from molkv_export.expert_pass import ExpertPass
from molkv_export.output_folder import partial_folder
from molkv_export.reparameterize import ExpertTable
from molkv_model.checkpoint import Checkpoint
from molkv_model.ranks import Ranks
from tests.small_models import write_checkpoint

LIMIT = 128 << 10


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("checkpoint")
    return Checkpoint(write_checkpoint(folder, "molkv", max_position_embeddings=12))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for less than the rows: a small disk, or a limit on the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(["mount", *options], check=False).returncode == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def write_rows(checkpoint: Checkpoint, out: Path) -> None:
    rows = ExpertPass(checkpoint, "int8", bytes(32), Ranks())
    with partial_folder(out, rows.continuation(force=False)) as folder:
        rows.write(folder, lambda _: None)


def test_too_small_a_disk_is_noticed_before_the_first_product(
    checkpoint: Checkpoint, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExpertTable, "embeddings", None)
    with pytest.raises(ExportError, match=r"experts\.molkv: no room .* needs \d+ bytes") as caught:
        write_rows(checkpoint, small_disk / "bundle")
    assert "free that much" in caught.value.fix
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_cannot_reserve_and_fills_up_is_named_and_nothing_is_left(
    checkpoint: Checkpoint, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    monkeypatch.setattr("molkv_export.expert_blob.SLICE_ROWS", 16)
    with pytest.raises(ExportError, match=r"experts\.molkv: no room for the expert blob"):
        write_rows(checkpoint, small_disk / "bundle")
    assert list(small_disk.iterdir()) == []


def test_files_that_cannot_be_reserved_are_as_long_as_others(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    headers = blob_headers(checkpoint.config, "int8", bytes(32), 60_000)
    files = BlobFiles(tmp_path, headers)
    files.create()
    assert files.are_there()
    assert [path.stat().st_size for path in files.paths] == [each.file_size for each in headers]
