"""How fast is expert attention, against reading its rows and against doing without a kernel?

    python benchmarks/expert_attention.py --values int4 --json result.json

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
import onnxruntime
import torch
from numpy.typing import NDArray

from molkv_export.backends.onnx.op_model import op_feeds, op_model
from molkv_export.expert_attention import reference_expert_attention
from molkv_export.op_parity import OpCase, make_case
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.native import NativeAttention, NativeLibrary, operator_library
from molkv_runtime.native.structures import AttentionInputs, Kernel
from molkv_runtime.row_geometry import EXPERT_TYPES, DataType, ExpertPrecision, RowGeometry

FLOOR_BYTE = 0x80
UNCACHED_BYTES = 256 * 2**20
CACHED_BYTES = 6 * 2**20


@dataclass(frozen=True)
class Shape:
    """One question: experts, heads and key size are the usual ones."""

    tokens: int
    value_size: int
    window: int
    experts: int = 4
    heads: int = 4
    values: ExpertPrecision = "int8"

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
        value_bytes = self.value_size // 2 if self.values == "int4" else self.value_size
        return self.rows * self.experts * (self.heads * self.key_size + value_bytes)

    def case(self, seed: int) -> OpCase:
        """Random inputs."""
        geometry = RowGeometry.of(
            EXPERT_TYPES[self.values],
            layers=1,
            experts=self.experts,
            key_heads=self.heads,
            key_size=self.key_size,
            value_size=self.value_size,
        )
        case = make_case(geometry, self.window, tokens=self.tokens, rows=self.rows, seed=seed)
        if self.values == "int4":  # without the byte that `floor` scans for
            case.rows.values[case.rows.values == FLOOR_BYTE] = 0
        return case


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

    # No case has this byte (make_case writes no -128), so a scan for it reads all.
    def step(i: int) -> None:
        for address, size in planes[i]:
            scan(address, FLOOR_BYTE, size)

    return step


def native(library: NativeLibrary, kernel: Kernel, cases: list[OpCase]) -> Step:
    """One kernel behind the C ABI, with scratch memory of the caller's."""
    all_inputs = []
    for case in cases:
        tokens, heads, key_size = case.query.shape
        rows, experts, _ = case.rows.values.shape
        inputs = AttentionInputs(
            struct_size=ctypes.sizeof(AttentionInputs),
            kernel=kernel,
            tokens=tokens,
            rows=rows,
            experts=experts,
            heads=heads,
            key_size=key_size,
            value_size=case.value_size,
            window=case.age_bias.shape[2],
            key_dtype=DataType.INT8,
            value_dtype=DataType.INT4 if case.rows.values.dtype == np.uint8 else DataType.INT8,
        )
        for name, array in case.given.items():
            if name != "start":
                setattr(inputs, name, array.ctypes.data)
        all_inputs.append(inputs)
    references = [ctypes.byref(inputs) for inputs in all_inputs]
    scratch = np.zeros(library.plain("attention_scratch_bytes", references[0]), np.uint8)
    output = np.zeros((cases[0].query.shape[0], cases[0].value_size), np.float32)
    arguments = (ctypes.c_void_p(output.ctypes.data), ctypes.c_void_p(scratch.ctypes.data))
    kept = (cases, scratch, output)

    def step(i: int) -> Any:
        library.call("attention", references[i], *arguments, None, None)
        return kept

    return step


def onnx_runtime(cases: list[OpCase], library: Path | None) -> Step:
    """One session, each case bound to it once; the stock function where no library is given."""
    first = cases[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if library is not None:
        options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(
        op_model(first).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result = np.zeros((1, first.query.shape[0], first.value_size), np.float32)
    bindings = []
    for case in cases:
        binding = session.io_binding()
        for name, array in op_feeds(case).items():
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
    attention = NativeAttention()
    results = []
    for memory, total in (("memory", UNCACHED_BYTES), ("cached", CACHED_BYTES)):
        if arguments.quick and memory == "memory":
            total = 64 * 2**20
        cases = [shape.case(seed) for seed in range(max(2, min(1000, total // shape.bytes)))]
        steps: dict[str, Step] = {"floor": floor(cases)}
        for kernel in attention.kernels():
            if kernel is not Kernel.SCALAR:
                steps[attention.name(kernel)] = native(attention.library, kernel, cases)
        steps["onnxruntime kernel"] = onnx_runtime(cases, operator_library())
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
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="three shapes, a short time each")
    parser.add_argument("--values", choices=["int8", "int4"], default="int8")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shapes = [
        Shape(tokens=tokens, value_size=value_size, window=window, values=arguments.values)
        for tokens in (1, 128)
        for value_size in (128, 768, 2048)
        for window in (16, 64, 256)
    ]
    if arguments.quick:
        quick = [(1, 128, 16), (1, 768, 64), (128, 768, 64)]
        shapes = [Shape(*sizes, values=arguments.values) for sizes in quick]
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
