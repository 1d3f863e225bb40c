"""The native reader and window do what the Python ones do, bit by bit and word by word."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molkv_runtime.blob import Blob, RowBatch
from molkv_runtime.errors import BlobFormatError, MolkvError, TokenIdError
from molkv_runtime.row_geometry import DataType, RowGeometry
from molkv_runtime.row_layout import RowLayout
from molkv_runtime.window import ExpertWindow
from tests.attacks.blob_files import (
    FIELDS,
    PAGE,
    Attack,
    attacks,
    edited,
    flipped,
    valid_bytes,
    write_valid,
)
from tests.format.strategies import SMALL, geometries, random_rows, write_shards
from tests.native.c_interface import (
    PLANE_KINDS,
    Library,
    NativeBlob,
    NativeError,
    NativeWindow,
    Status,
)
from tests.native.conftest import NATIVE

ROOT = Path(__file__).parents[2]
ROWS = 11
STATUSES = {"BlobFormatError": Status.FORMAT, "RowCorruptError": Status.CORRUPT_ROW}


@pytest.fixture(scope="session")
def library(native_library: Path) -> Library:
    return Library(native_library)


def all_attacks() -> list[Attack]:
    with tempfile.TemporaryDirectory() as folder:
        return attacks(Path(folder))


def read_everything(library: Library, path: Path, **options: int) -> None:
    with NativeBlob(library, path, **options) as blob:
        blob.read(range(blob.info.vocabulary_size))


@pytest.mark.parametrize("attack", all_attacks(), ids=lambda attack: attack.name)
def test_every_hostile_blob_is_refused_in_the_words_of_the_python_reader(
    library: Library, attack: Attack, tmp_path: Path
) -> None:
    path = tmp_path / f"{attack.name}.molkv"
    attack.write(path)
    with pytest.raises(NativeError) as caught:
        read_everything(library, path)
    assert caught.value.status is STATUSES[attack.error]
    message = caught.value.message
    assert message.startswith(f"{path}: ")
    assert message.removeprefix(f"{path}: ").removeprefix("row of ").startswith(attack.field)
    with pytest.raises(MolkvError) as reference, Blob.open(path) as blob:
        blob.read(range(blob.vocabulary_size))
    assert message == str(reference.value)


def test_the_files_that_the_hostile_ones_are_made_from_are_read(
    library: Library, tmp_path: Path
) -> None:
    for value_size in (6, 3000):
        path = tmp_path / f"valid-{value_size}.molkv"
        write_valid(path, value_size=value_size)
        read_everything(library, path)


FIELD_VALUES = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 5, 64, 100, 128, 4096, 16384, 32768, 2**20, 2**26, 2**26 + 64]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 63).map(lambda bit: 2**bit),
    st.integers(1, 64).map(lambda bit: 2**bit - 1),
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), FIELD_VALUES, min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_any_header_is_accepted_or_refused_as_by_the_python_reader(
    library: Library, tmp_path_factory: pytest.TempPathFactory, fields: dict[str, int]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = {
        name: value % 2 ** (8 * struct.calcsize(FIELDS[name][1])) for name, value in fields.items()
    }
    path = folder / "edited.molkv"
    path.write_bytes(edited(valid_bytes(folder), **whole))
    try:
        with Blob.open(path) as blob:
            expected = repr(blob.header.row_count)
    except BlobFormatError as error:
        expected = str(error)
    try:
        with NativeBlob(library, path) as native:
            found = repr(native.info.vocabulary_size)
    except NativeError as error:
        found = error.message
    assert found == expected


@given(
    geometries(),
    st.integers(1, 4),
    st.lists(st.integers(0, ROWS - 1), max_size=30),
    st.integers(0, 2**32 - 1),
    st.sampled_from([{}, {"readers": 1}, {"mode": 1}, {"cache_bytes": 100_000}]),
)
@settings(max_examples=60, deadline=None)
def test_any_tokens_from_any_shards_are_the_rows_of_the_python_reader(
    library: Library,
    geometry: RowGeometry,
    shard_count: int,
    ids: list[int],
    seed: int,
    options: dict[str, int],
) -> None:
    rows = random_rows(geometry, ROWS, seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_shards(Path(folder), geometry, rows, shard_count)
        with Blob.open(paths) as blob:
            expected = blob.read(ids)
            header, stored = blob.header, blob.layout.embeddings(expected.rows)
        with NativeBlob(library, paths[::-1], **options) as native:
            for _ in range(2):  # the second time, perhaps, from the cache
                for batch_rows, index in (native.read(ids), native.prefetch(ids)):
                    assert batch_rows.tobytes() == expected.rows.tobytes()
                    assert index.tolist() == expected.index.tolist()
                    if native.embedding_dtype is not DataType.NONE:
                        assert stored is not None
                        found = native.embeddings(batch_rows, index)
                        # The same numbers; the bits of a NaN are the processor's.
                        wanted_numbers = stored[expected.index].astype(np.float32)
                        np.testing.assert_array_equal(found, wanted_numbers)
            assert native.embedding_dtype is geometry.embedding_dtype
            info, stats = native.info, native.stats
    assert info.vocabulary_size == header.vocabulary_size
    assert (info.row_size, info.row_stride) == (header.row_size, header.row_stride)
    assert bytes(info.identity) == header.identity
    for name, _ in info.geometry._fields_:
        assert getattr(info.geometry, name) == int(getattr(geometry, name))
    distinct = len(set(ids))
    if options.get("mode"):
        wanted = (0, 0)
    elif options.get("cache_bytes") and distinct <= 100_000 // (header.row_stride + 192):
        wanted = (distinct, 3 * distinct)
    elif options.get("cache_bytes"):
        wanted = (stats.rows, 4 * distinct - stats.rows)
    else:
        wanted = (4 * distinct, 0)
    assert (stats.rows, stats.cache_hits) == wanted
    assert stats.reads == stats.rows
    assert stats.bytes == stats.rows * header.row_stride


@pytest.mark.parametrize("bad", [-1, ROWS, 2**31, 2**63 - 1, -(2**63)])
def test_an_id_outside_the_vocabulary_is_named_in_the_same_words(
    library: Library, tmp_path: Path, bad: int
) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    with Blob.open(path) as blob, pytest.raises(TokenIdError) as expected:
        blob.read([1, bad])
    with NativeBlob(library, path) as native:
        with pytest.raises(NativeError) as caught:
            native.read([1, bad])
        assert native.stats.reads == 0
    assert caught.value.status is Status.OUT_OF_RANGE
    assert caught.value.message == str(expected.value)


@pytest.mark.parametrize("readers", [1, 4])
def test_the_system_sees_one_read_of_one_stride_for_each_distinct_id_and_no_map(
    library: Library, tmp_path: Path, readers: int
) -> None:
    (path,) = write_shards(tmp_path, SMALL, random_rows(SMALL, ROWS))
    trace = tmp_path / "trace"
    script = Path(__file__).with_name("read_rows.py")
    subprocess.run(
        [
            *("strace", "-ff", "-y", "-e", "trace=pread64,mmap", "-o", str(trace)),
            *(sys.executable, str(script), str(library.path), str(path), str(readers)),
            *("7", "2", "7", "2", "2", "5"),
        ],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    # One file for each thread, so that no line is torn.
    traces = [file.read_text().splitlines() for file in tmp_path.glob("trace.*")]
    lines = [line for thread in traces for line in thread if path.name in line]
    assert not [line for line in lines if line.startswith("mmap(")]
    reads = [
        (int(match[2]), int(match[1]))
        for line in lines
        if (match := re.fullmatch(r"pread64\(.*, (\d+), (\d+)\) += \1", line))
    ]
    expected = [(0, PAGE), *((PAGE + row * 128, 128) for row in (2, 5, 7))]
    assert sorted(reads) == expected
    if readers == 1:
        assert reads == expected, "in file order"


@pytest.fixture(scope="session")
def checksums(native_build: Path) -> ctypes.CDLL:
    """The library's checksum functions, which molkv.h does not have."""
    library = native_build / f"crc32c-shim-{os.getpid()}.so"
    compiler = os.environ.get("CXX") or shutil.which("c++")
    assert compiler
    command = ["nice", "-n", "15", compiler, "-shared", "-fPIC", "-std=c++17"]
    command += [f"-I{NATIVE / 'src'}", str(Path(__file__).with_name("crc32c_shim.cc"))]
    subprocess.run([*command, str(native_build / "libmolkv_core.a"), "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("name", ["test_crc32c", "test_crc32c_table"])
def test_checksums_are_those_of_google_crc32c(checksums: ctypes.CDLL, name: str) -> None:
    generator = np.random.default_rng(5)
    function = getattr(checksums, name)
    function.restype = ctypes.c_uint32
    for size in [*range(301), 3071, 3072, 3073, 6143, 6144, 9300, 100_001]:
        data = generator.bytes(size)
        assert function(data, ctypes.c_size_t(size)) == google_crc32c.value(data), size


@given(
    geometries(),
    st.integers(1, 9),
    st.integers(1, 12),
    st.lists(st.one_of(st.none(), st.lists(st.integers(0, ROWS - 1), max_size=12)), max_size=25),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_the_windows_planes_are_those_of_the_python_window(
    library: Library,
    geometry: RowGeometry,
    window: int,
    chunk: int,
    steps: list[list[int] | None],
    seed: int,
) -> None:
    rows = random_rows(geometry, ROWS, seed)
    reference = ExpertWindow(RowLayout.of(geometry), window, chunk)
    native = NativeWindow(library, geometry, window, chunk)
    try:
        assert native.nbytes == reference.nbytes
        for step in steps:
            if step is None:
                native.reset()
                reference.reset()
            else:
                ids, index = np.unique(np.array(step[:chunk], np.int64), return_inverse=True)
                batch = np.ascontiguousarray(rows[ids])
                native.append(batch, index.astype(np.uint32))
                reference.append(RowBatch(batch, index.astype(np.int64)))
            assert native.bounds == reference.bounds
            for layer, planes in enumerate(reference.planes()):
                for kind in PLANE_KINDS:
                    expected, found = getattr(planes, kind), native.plane(layer, kind)
                    assert (found is None) == (expected is None)
                    if found is not None:
                        assert found.dtype == expected.dtype
                        assert found.tobytes() == expected.tobytes()
    finally:
        native.free()


def test_a_flipped_bit_anywhere_in_a_row_is_found(library: Library, tmp_path: Path) -> None:
    valid = valid_bytes(tmp_path)
    path = tmp_path / "flipped.molkv"
    for position in range(76):
        path.write_bytes(flipped(valid, PAGE + 128 + position))
        with pytest.raises(NativeError, match="token id 1:"):
            read_everything(library, path)
        read_everything(library, path, skip_verify=1)
