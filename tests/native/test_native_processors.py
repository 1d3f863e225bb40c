"""Rungs 1 to 3 of the parity ladder on every processor: rows, their values, and the op.

Where Python does not run, a small program writes what the library computes into files.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from molkv_export.backends.onnx.op_model import op_model
from molkv_export.op_parity import OP_TOLERANCE, OpCase, make_case
from molkv_runtime.blob import Blob
from molkv_runtime.dequantize import dequantize
from molkv_runtime.errors import MolkvError
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.row_layout import DataType, RowGeometry, RowLayout
from tests.attacks.blob_files import attacks
from tests.format.strategies import write_shards
from tests.native.builds import Builds, Processor, emulated
from tests.native.c_interface import Status

# A status and a message are what the program prints; see STATUSES in test_native_blob.
STATUSES = {"BlobFormatError": Status.FORMAT, "RowCorruptError": Status.CORRUPT_ROW}
ROWS = 7


def geometry_of(heads: int, key_size: int, value_size: int, dtype: DataType) -> RowGeometry:
    return RowGeometry.of(
        dtype, layers=2, experts=3, key_heads=heads, key_size=key_size, value_size=value_size
    )


def op_cases() -> dict[str, OpCase]:
    """Decode, prefill, padding, odd sizes, half precision, and MoLE."""
    int8, half = DataType.INT8, DataType.FLOAT16
    return {
        "decode": make_case(geometry_of(4, 16, 192, int8), 64, tokens=1, rows=64),
        "decode-wide": make_case(geometry_of(4, 64, 768, int8), 64, tokens=1, rows=64),
        "prefill": make_case(geometry_of(2, 24, 40, int8), 16, tokens=21, rows=36),
        "padding": make_case(geometry_of(2, 24, 40, int8), 16, tokens=3, rows=24, start=15),
        "odd": make_case(geometry_of(3, 7, 33, int8), 13, tokens=9, rows=40),
        "int4": make_case(geometry_of(4, 16, 256, DataType.INT4), 64, tokens=1, rows=64),
        "int4-prefill": make_case(geometry_of(2, 24, 64, DataType.INT4), 16, tokens=21, rows=36),
        "half": make_case(geometry_of(3, 7, 33, half), 13, tokens=9, rows=40),
        "mole": make_case(geometry_of(0, 0, 48, int8), 1, tokens=6, rows=6),
    }


OP_CASES = op_cases()


def write_case(case: OpCase, path: Path) -> Path:
    """The format is that of native/tests/case_file.h."""
    feeds = {name: array for name, array in case.feeds.items() if array is not None}
    tokens, heads, key_size = case.query.shape
    rows, experts, _ = feeds["values"].shape
    types = {np.dtype(np.float16): 2, np.dtype(np.int8): 3, np.dtype(np.uint8): 4}
    header = (tokens, rows, experts, heads, key_size, case.value_size, case.age_bias.shape[2])
    header += (types[feeds["keys"].dtype], types[feeds["values"].dtype])
    header += (int("key_scales" in feeds), int("value_scales" in feeds))
    content = struct.pack("<11Iq", *header, case.start)
    arrays = [array for name, array in feeds.items() if name != "start"]
    path.write_bytes(content + b"".join(array.tobytes() for array in arrays))
    return path


def difference(result: bytes, case: OpCase) -> float:
    expected = expert_attention(case.query, case.rows, case.age_bias, case.start)
    ours = np.frombuffer(result, np.float32).reshape(expected.shape)
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def run(processor: Processor, *command: str | Path) -> str:
    finished = processor.run(*command)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def parity_program(builds: Builds, processor: Processor) -> Path:
    return builds.build(processor.kind, "molkv_parity") / "tests" / "molkv_parity"


@pytest.mark.parametrize("dtype", [DataType.INT8, DataType.INT4, DataType.FLOAT16])
def test_rows_and_their_values_are_exact(
    builds: Builds, processor: Processor, dtype: DataType, tmp_path: Path
) -> None:
    geometry = geometry_of(2, 5, 64 if dtype is DataType.INT4 else 13, dtype)
    layout = RowLayout.of(geometry)
    layers = [make_case(geometry, 1, tokens=1, rows=ROWS, seed=seed).rows for seed in (3, 4)]
    rows = layout.pack(layers)
    (path,) = write_shards(tmp_path, geometry, rows)
    run(processor, parity_program(builds, processor), "rows", path, tmp_path)
    assert (tmp_path / "rows").read_bytes() == rows.tobytes()
    parts = layout.sections(rows)
    values = np.stack([dequantize(part.values, part.value_scales) for part in parts], axis=1)
    values += np.float32(0)  # a kernel's sums begin with 0, so no -0 comes out
    assert (tmp_path / "values").read_bytes() == values.tobytes()


@pytest.mark.parametrize("name", OP_CASES)
def test_every_kernel_matches_numpy(
    builds: Builds, processor: Processor, name: str, tmp_path: Path
) -> None:
    case = OP_CASES[name]
    results = tmp_path / "results"
    results.mkdir()
    written = write_case(case, tmp_path / "case")
    run(processor, parity_program(builds, processor), "attend", written, results)
    wrong = replace(case, query=-case.query)
    kernels = {path.name: path.read_bytes() for path in results.iterdir()}
    assert len(kernels) > 1
    for kernel, result in kernels.items():
        assert difference(result, case) <= OP_TOLERANCE, kernel
        assert difference(result, wrong) > OP_TOLERANCE, kernel


@pytest.mark.parametrize("kernel", ["operator", "function"])
def test_onnx_runtime_for_arm64_matches_numpy_with_the_operator_and_without(
    builds: Builds, arm64_prefix: Path, arm64_onnxruntime: Path, kernel: str, tmp_path: Path
) -> None:
    build = builds.build("arm64", "molkv_onnxruntime", "molkv_ort")
    for cpu in ("max", "cortex-a53"):
        for name in ("decode", "prefill", "int4", "half", "mole"):
            case = OP_CASES[name]
            model, output = tmp_path / "op.onnx", tmp_path / "output"
            onnx.save(op_model(case), model)
            command = [build / "tests" / "molkv_onnxruntime", arm64_onnxruntime, model]
            command += [write_case(case, tmp_path / "case"), output]
            if kernel == "operator":
                command.append(build / "onnxruntime" / "libmolkv_ort.so")
            run(emulated(cpu, arm64_prefix), *command)
            assert difference(output.read_bytes(), case) <= OP_TOLERANCE, (cpu, name)


def refusals(builds: Builds, processor: Processor, folder: Path) -> None:
    """Every hostile blob gives the status and the words of the Python reader."""
    expected = []
    for attack in attacks(folder):
        path = folder / f"{attack.name}.molkv"
        attack.write(path)
        with pytest.raises(MolkvError) as caught, Blob.open(path) as blob:
            blob.read(range(blob.vocabulary_size))
        assert attack.field in str(caught.value)
        expected.append((path, f"{STATUSES[attack.error].value} {caught.value}"))
    program = parity_program(builds, processor)
    printed = run(processor, program, "refuse", *(path for path, _ in expected))
    assert printed.splitlines() == [line for _, line in expected]


def test_every_hostile_blob_is_refused_on_every_processor(
    builds: Builds, processor: Processor, tmp_path: Path
) -> None:
    refusals(builds, processor, tmp_path)


def test_every_hostile_blob_is_refused_under_the_address_sanitizer(
    builds: Builds, tmp_path: Path
) -> None:
    refusals(builds, Processor("address", "x86-64"), tmp_path)
