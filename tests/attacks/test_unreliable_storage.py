"""Storage that interrupts reads, answers short, or damages rows: right rows, or a named row."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_runtime.blob import Blob
from molkv_runtime.errors import RowCorruptError
from molkv_runtime.native import BlobOptions, NativeBlob
from tests.format.strategies import SMALL, random_rows, write_shards

if TYPE_CHECKING:
    from tests.conftest import BundleOf

READERS = """
import ctypes, hashlib, json, os, sys
import numpy as np
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.native import BlobOptions, NativeBlob
files = Bundle.open(sys.argv[1]).expert_files
shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
with Blob.open(files) as reader:
    ids = np.arange(reader.vocabulary_size)
    found = [hashlib.sha256(reader.read(ids).rows.tobytes()).hexdigest(), shim.disturbed_reads()]
for readers in (1, 4):
    with NativeBlob(files, BlobOptions(readers=readers)) as reader:
        digest = hashlib.sha256(reader.read(ids).rows.tobytes()).hexdigest()
    found += [digest, shim.disturbed_reads()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def unreliable_reads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("unreliable_reads.cc")
    library = tmp_path_factory.mktemp("unreliable") / "unreliable_reads.so"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-shared", "-fPIC"]
    subprocess.run(["g++", *flags, str(source), "-o", str(library), "-ldl"], check=True)
    return library


def test_interrupted_and_short_reads_are_continued_by_both_readers(
    bundle_of: BundleOf, unreliable_reads: Path
) -> None:
    folder = bundle_of("molkv", "int8")
    content = (folder / "experts.molkv").read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", READERS, str(folder)],
        env=os.environ | {"LD_PRELOAD": str(unreliable_reads)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(result.stdout)
    assert set(found[::2]) == {hashlib.sha256(content[16384:]).hexdigest()}
    # Of three reads two were disturbed, for each of the readers.
    counts = [0, *found[1::2]]
    assert all(after - before > 320 for before, after in itertools.pairwise(counts))


@pytest.mark.parametrize("place", [0, 1, -1])
def test_any_byte_of_a_row_that_changes_on_storage_names_file_and_token_id(
    tmp_path: Path, place: int
) -> None:
    rows = random_rows(SMALL, 11)
    paths = write_shards(tmp_path, SMALL, rows, 2)
    with Blob.open(paths) as python, NativeBlob(paths, BlobOptions(readers=2)) as native:
        header = python.header
        # Token id 8 is the fourth row of the second file.
        byte = header.data_offset + 3 * header.row_stride + place % header.row_size
        with paths[1].open("r+b") as file:
            file.seek(byte)
            (before,) = file.read(1)
            file.seek(byte)
            file.write(bytes([before ^ 0x10]))
        for reader in (python, native):
            with pytest.raises(RowCorruptError, match=rf"{paths[1].name}: row of token id 8\b"):
                reader.read(np.array([2, 8]))
            np.testing.assert_array_equal(reader.read(np.array([2, 7, 9])).rows, rows[[2, 7, 9]])
