"""How fast is expert attention, against reading its rows and against doing without a kernel?

    python benchmarks/expert_attention.py --library build/libmolkv.so \
        --onnxruntime-library build/onnxruntime/libmolkv_ort.so --json result.json

The floor is the time that one core takes to read the window's keys and values once, measured beside
each kernel by scanning them with the C library's memchr. All go through many windows in turn, as a
model's layers do: "memory" is 256 MB of them, though at most 1,000, "cached" is 6 MB.
One thread everywhere. Every figure is a median; candidates take turns, so that a change of the
machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper

from molkv_export.backends.onnx.expert_attention_function import (
    INPUTS,
    OPERATOR,
    ExpertAttentionShape,
    expert_attention_function,
)
from molkv_export.backends.onnx.graph_builder import NAMESPACE_MOLKV, OPSET
from molkv_export.expert_attention import reference_expert_attention
from molkv_export.op_parity import OpCase, make_case
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.row_geometry import DataType, RowGeometry

KERNELS = {1: "scalar", 2: "avx2", 3: "avx512", 4: "neon", 5: "neon-dotprod"}
ARRAYS = ("query", "keys", "key_scales", "values", "value_scales", "age_bias")
UNCACHED_BYTES = 256 * 2**20
CACHED_BYTES = 6 * 2**20


class Inputs(ctypes.Structure):
    """molkv_attention_inputs of molkv.h."""

    _fields_ = (
        *[
            (name, ctypes.c_uint32)
            for name in (
                "struct_size",
                "kernel",
                "tokens",
                "rows",
                "experts",
                "heads",
                "key_size",
                "value_size",
                "window",
                "key_dtype",
                "value_dtype",
            )
        ],
        ("start", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in ARRAYS],
    )


@dataclass(frozen=True)
class Shape:
    """One question: experts, heads and key size are the usual ones."""

    tokens: int
    value_size: int
    window: int
    experts: int = 4
    heads: int = 4

    @property
    def key_size(self) -> int:
        """dk: a twelfth of the width, as the presets have."""
        return max(8, self.value_size // 12)

    @property
    def rows(self) -> int:
        """S: the tokens' own rows and those that the first one still attends."""
        return self.window - 1 + self.tokens

    @property
    def bytes(self) -> int:
        """Of keys and values that the step must read."""
        return self.rows * self.experts * (self.heads * self.key_size + self.value_size)

    def case(self, seed: int) -> OpCase:
        """Random inputs, int8."""
        width = self.heads * self.key_size
        geometry = RowGeometry(
            layers=1,
            experts=self.experts,
            key_heads=self.heads,
            key_size=self.key_size,
            value_size=self.value_size,
            key_dtype=DataType.INT8,
            value_dtype=DataType.INT8,
            scale_dtype=DataType.FLOAT32,
            key_group_size=width,
            value_group_size=self.value_size,
        )
        return make_case(geometry, self.window, tokens=self.tokens, rows=self.rows, seed=seed)


Step = Callable[[int], Any]


def floor(cases: list[OpCase]) -> Step:
    """Reads every key and value, and does nothing with them."""
    scan = ctypes.CDLL(None).memchr
    scan.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
    planes = [
        [
            (plane.ctypes.data, plane.nbytes)
            for plane in (case.rows.keys, case.rows.values)
            if plane is not None
        ]
        for case in cases
    ]

    # make_case writes no -128, so a scan for it reads all.
    def step(i: int) -> None:
        for address, size in planes[i]:
            scan(address, 0x80, size)

    return step


def native(library: ctypes.CDLL, kernel: int, cases: list[OpCase]) -> Step:
    """One kernel behind the C ABI, with scratch memory of the caller's."""
    attend = library.molkv_attention
    all_inputs = []
    for case in cases:
        tokens, heads, key_size = case.query.shape
        rows, experts, value_size = case.rows.values.shape
        inputs = Inputs(
            ctypes.sizeof(Inputs),
            kernel,
            tokens,
            rows,
            experts,
            heads,
            key_size,
            value_size,
            case.age_bias.shape[2],
            DataType.INT8,
            DataType.INT8,
        )
        for name in ARRAYS:
            array = case.feeds[name]
            if array is not None:
                setattr(inputs, name, array.ctypes.data)
        all_inputs.append(inputs)
    references = [ctypes.byref(inputs) for inputs in all_inputs]
    library.molkv_attention_scratch_bytes.restype = ctypes.c_size_t
    scratch_bytes = library.molkv_attention_scratch_bytes(references[0])
    scratch = np.zeros(scratch_bytes, np.uint8)
    output = np.zeros((cases[0].query.shape[0], cases[0].rows.values.shape[2]), np.float32)
    arguments = (ctypes.c_void_p(output.ctypes.data), ctypes.c_void_p(scratch.ctypes.data))
    kept = (cases, scratch, output)

    def step(i: int) -> Any:
        attend(references[i], *arguments, None, None, None)
        return kept

    return step


def onnx_runtime(cases: list[OpCase], library: Path | None) -> Step:
    """One session, each case bound to it once; the stock function where no library is given."""
    feeds = [
        {name: array for name, array in case.feeds.items() if array is not None} for case in cases
    ]
    first = cases[0]
    shape = ExpertAttentionShape(
        heads=first.query.shape[1],
        key_size=first.query.shape[2],
        window=first.age_bias.shape[2],
        has_key_scales=True,
        has_value_scales=True,
    )
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feeds[0].items()
    ]
    output = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)
    node = helper.make_node(OPERATOR, list(INPUTS), ["output"], domain=NAMESPACE_MOLKV)
    model = helper.make_model(
        helper.make_graph([node], "expert_attention", inputs, [output]),
        functions=[expert_attention_function(shape)],
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(NAMESPACE_MOLKV, 1)],
        ir_version=11,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result = np.zeros((first.query.shape[0], first.rows.values.shape[2]), np.float32)
    bindings = []
    for feed in feeds:
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        binding.bind_ortvalue_output("output", onnxruntime.OrtValue.ortvalue_from_numpy(result))
        bindings.append(binding)
    return lambda i: session.run_with_iobinding(bindings[i])


def numpy_step(cases: list[OpCase]) -> Step:
    """The reference in NumPy."""
    return lambda i: expert_attention(cases[i].query, cases[i].rows, cases[i].age_bias)


def torch_step(cases: list[OpCase]) -> Step:
    """The reference in torch, not compiled."""

    def tensor(array: NDArray[Any] | None) -> Any:
        return None if array is None else torch.from_numpy(array)

    feeds = [{name: tensor(array) for name, array in case.feeds.items()} for case in cases]

    def step(i: int) -> Any:
        with torch.inference_mode():
            return reference_expert_attention(**feeds[i])

    return step


def measure(steps: dict[str, Step], windows: int, seconds: float) -> dict[str, float]:
    """Median microseconds of a step; each candidate has the same time in each of its turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    place = dict.fromkeys(steps, 0)
    turns = 5
    for turn in range(turns + 1):
        for name, step in steps.items():
            ends = time.perf_counter() + seconds / turns
            while True:
                began = time.perf_counter()
                step(place[name] % windows)
                ended = time.perf_counter()
                place[name] += 1
                if turn > 0:  # the first turn warms up
                    times[name].append(1e6 * (ended - began))
                if ended > ends:
                    break
    return {name: statistics.median(values) for name, values in times.items()}


def benchmark(shape: Shape, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of all candidates, with rows in memory and in the cache."""
    library = ctypes.CDLL(str(arguments.library))
    results = []
    for memory, total in (("memory", UNCACHED_BYTES), ("cached", CACHED_BYTES)):
        if arguments.quick and memory == "memory":
            total = 64 * 2**20
        cases = [shape.case(seed) for seed in range(max(2, min(1000, total // shape.bytes)))]
        steps: dict[str, Step] = {"floor": floor(cases)}
        for kernel, name in KERNELS.items():
            if kernel > 1 and library.molkv_kernel_available(kernel):
                steps[name] = native(library, kernel, cases)
        if arguments.onnxruntime_library is not None:
            steps["onnxruntime kernel"] = onnx_runtime(cases, arguments.onnxruntime_library)
        if memory == "memory":
            few = cases[:2]  # far from their floor, wherever the rows are
            steps["onnxruntime function"] = wrap(onnx_runtime(few, None), few)
            steps["numpy"] = wrap(numpy_step(few), few)
            steps["torch eager"] = wrap(torch_step(few), few)
        medians = measure(steps, len(cases), 0.05 if arguments.quick else 1.0)
        results.append({"shape": shape, "rows in": memory, "microseconds": medians})
    return results


def wrap(step: Step, cases: list[OpCase]) -> Step:
    """A step over fewer cases than the others have."""
    return lambda i: step(i % len(cases))


def print_table(results: list[dict[str, Any]]) -> None:
    """One line for each candidate."""
    print(f"{'T':>4} {'d':>5} {'W':>4} {'KB':>7} {'rows in':8} {'':22}", end="")
    print(f"{'us':>10} {'x floor':>8} {'x stock':>8}")
    for result in results:
        shape, medians = result["shape"], result["microseconds"]
        stock = medians.get("onnxruntime function")
        for name, median in medians.items():
            print(
                f"{shape.tokens:4} {shape.value_size:5} {shape.window:4} {shape.bytes / 1e3:7.0f} "
                f"{result['rows in']:8} {name:22}{median:10.1f} {median / medians['floor']:8.2f} "
                + (f"{stock / median:8.1f}" if stock else f"{'':8}")
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, required=True, help="libmolkv.so")
    parser.add_argument("--onnxruntime-library", type=Path, help="libmolkv_ort.so")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="three shapes, a short time each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shapes = [
        Shape(tokens=tokens, value_size=value_size, window=window)
        for tokens in (1, 128)
        for value_size in (128, 768, 2048)
        for window in (16, 64, 256)
    ]
    if arguments.quick:
        shapes = [Shape(1, 128, 16), Shape(1, 768, 64), Shape(128, 768, 64)]
    results = [result for shape in shapes for result in benchmark(shape, arguments)]
    print_table(results)
    if arguments.json is not None:
        written = [{**result, "shape": vars(result["shape"])} for result in results]
        machine = {
            "machine": platform.machine(),
            "system": platform.system(),
            "onnxruntime": onnxruntime.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        }
        document = {"benchmark": "expert_attention", "on": machine, "results": written}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
