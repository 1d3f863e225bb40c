"""Rung 3 on ExecuTorch: the kernel is right, refuses what does not fit, and is built once."""

from __future__ import annotations

import dataclasses
import itertools
import stat
from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_export.backends.executorch.op_program import run_op_program
from molkv_export.op_parity import (
    OP_TOLERANCE,
    WRONG_FORMULA_DIFFERENCE,
    OpCase,
    compare_implementations,
    make_case,
)
from molkv_runtime.errors import NativeLibraryError
from molkv_runtime.executorch_runtime import load_executorch
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.native.executorch_kernel import cache_folder, kernel_library
from molkv_runtime.row_geometry import DataType, RowGeometry

if TYPE_CHECKING:
    from pathlib import Path


def geometry(dtype: DataType, key_heads: int = 2) -> RowGeometry:
    return RowGeometry.of(
        layers=1,
        experts=3,
        key_heads=key_heads,
        key_size=8 if key_heads else 0,
        value_size=64,
        dtype=dtype,
    )


def numpy_result(case: OpCase) -> np.ndarray:
    return expert_attention(case.query, case.rows, case.age_bias, case.start)


def distance(ours: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("dtype", [DataType.INT8, DataType.INT4, DataType.FLOAT16])
def test_the_kernel_computes_the_op_and_a_wrong_formula_differs(dtype: DataType) -> None:
    kernels = {"ExecuTorch kernel": run_op_program}
    results = list(compare_implementations(geometry(dtype), 6, kernels, {}))
    assert [r.name for r in results if "ExecuTorch" in r.name] == ["ExecuTorch kernel = NumPy"]
    for result in results:
        if result.must_differ:
            assert result.difference > WRONG_FORMULA_DIFFERENCE
        else:
            assert result.difference < OP_TOLERANCE, result.name


def test_the_kernel_takes_one_hot_keys_without_scales() -> None:
    case = make_case(geometry(DataType.INT8, key_heads=0), 1, tokens=4, rows=4)
    assert case.rows.key_scales is None
    assert distance(run_op_program(case), numpy_result(case)) < OP_TOLERANCE


def test_the_result_is_the_same_to_the_bit_with_any_number_of_threads() -> None:
    runtime = load_executorch()
    case = make_case(geometry(DataType.INT8), 6, tokens=33, rows=38)
    results, before = [], runtime.threads
    try:
        for threads in (1, 2, 3):
            runtime.set_threads(threads)
            results.append(run_op_program(case))
    finally:
        runtime.set_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_padding_that_leaves_a_token_without_rows_is_refused() -> None:
    case = make_case(geometry(DataType.INT8), 6, tokens=2, rows=6, start=6)
    with pytest.raises(RuntimeError):
        run_op_program(case)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    case = make_case(geometry(DataType.INT8), 6, tokens=2, rows=6)
    keys = case.rows.keys
    assert keys is not None
    fewer = dataclasses.replace(
        case, rows=dataclasses.replace(case.rows, keys=np.ascontiguousarray(keys[:-1]))
    )
    with pytest.raises(RuntimeError):
        run_op_program(fewer)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    assert cache_folder() == tmp_path / "cache" / "molkv"
    return tmp_path / "cache" / "molkv"


def counting_compiler(folder: Path) -> Path:
    """A compiler that notes that it was called, in ``calls`` beside it."""
    compiler = folder / "counting-c++"
    compiler.write_text(f'#!/bin/sh\necho >> {folder}/calls\nexec c++ "$@"\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    return compiler


@pytest.mark.usefixtures("empty_cache")
def test_the_library_is_compiled_once_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", str(counting_compiler(tmp_path)))
    runtime = load_executorch()
    built = [kernel_library(runtime.folder, runtime.version) for _ in range(3)]
    assert len({*built}) == 1
    assert (tmp_path / "calls").read_text().count("\n") == 1
    assert [str(built[0]) in record.message for record in caplog.records] == [True]
    # Nothing half-made lies beside it.
    assert list(built[0].parent.iterdir()) == [built[0]]


def test_another_version_of_executorch_gets_a_library_of_its_own(
    empty_cache: Path,
) -> None:
    folder = load_executorch().folder
    files = {kernel_library(folder, version) for version in ("1.5.1", "1.5.2")}
    assert len(files) == len(list(empty_cache.iterdir())) == 2
    for one, other in itertools.combinations(files, 2):
        assert one.parent != other.parent


@pytest.mark.usefixtures("empty_cache")
def test_without_a_compiler_the_error_says_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load_executorch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NativeLibraryError, match=r"no C\+\+ compiler.*c\+\+, g\+\+, clang\+\+"):
        kernel_library(runtime.folder, runtime.version)
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(NativeLibraryError, match="CXX=no-such-compiler -O3"):
        kernel_library(runtime.folder, runtime.version)


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing_behind(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load_executorch()
    monkeypatch.setenv("CXX", "c++ -DET_USE_THREADPOOL=) -Dnamespace=nothing")
    with pytest.raises(NativeLibraryError, match=r"(?s)cannot build.*error.*set CXX"):
        kernel_library(runtime.folder, runtime.version)
    assert not list(empty_cache.rglob("*.so"))


def test_a_cache_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load_executorch()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NativeLibraryError, match=r"file.*set XDG_CACHE_HOME"):
        kernel_library(runtime.folder, runtime.version)
