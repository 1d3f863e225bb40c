"""Answers for Core ML on Linux: real packages, described and evaluated op by op, over a socket.

The Swift tests' `EvaluatedModels` is the client. A message is the size of its JSON part as four
bytes, little-endian, the JSON, and the content of the arrays that the JSON lists.
"""

from __future__ import annotations

import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from coremltools.models.utils import load_spec
from numpy.typing import NDArray

from molkv_export.backends.coreml.mil_evaluator import MilProgram, State

# Core ML's numbers for array types; MLMultiArrayDataType has the same.
TYPES: dict[int, type[np.generic]] = {
    0x10010: np.float16,
    0x10020: np.float32,
    0x20020: np.int32,
}


def described(package: Path, function: str) -> dict[str, Any]:
    """A function's inputs, outputs and states as the package's specification states them."""
    specification = load_spec(str(next(package.rglob("*.mlmodel"))))
    (found,) = (f for f in specification.description.functions if f.name == function)
    states = [(feature.name, feature.type.stateType.arrayType) for feature in found.state]
    return {
        "inputs": [_feature(f.name, f.type.multiArrayType) for f in found.input],
        "outputs": [_feature(f.name, f.type.multiArrayType) for f in found.output],
        "states": [_feature(name, array) for name, array in states],
        "metadata": dict(specification.description.metadata.userDefined),
    }


def _feature(name: str, array: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "type": array.dataType}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, socket: Path) -> None:
        super().__init__(str(socket), _Connection)
        self.states: dict[tuple[str, int], State] = {}
        self.programs = cache(MilProgram)


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while request := _read(self.rfile):
            try:
                answer, arrays = self._answer(*request)
            except Exception as error:  # noqa: BLE001 - the client is told, and fails by it
                answer, arrays = {"error": f"{type(error).__name__}: {error}"}, {}
            _write(self.wfile, answer, arrays)

    def _answer(
        self, request: dict[str, Any], arrays: dict[str, NDArray[Any]]
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        package, name = Path(request["package"]), request["function"]
        if request["ask"] == "describe":
            return described(package, name), {}
        function = self.server.programs(package).function(name)
        key = (request["package"], request["state"])
        if key not in self.server.states:
            self.server.states[key] = function.make_state()
        outputs = function.run(arrays, self.server.states[key])
        (logits,) = (output for name, output in outputs.items() if name == "logits")
        return {}, {"logits": logits.astype(np.float32)}


def _read(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    size = stream.read(4)
    if len(size) < 4:
        return None
    message: dict[str, Any] = json.loads(stream.read(struct.unpack("<I", size)[0]))
    arrays = {}
    for array in message.get("arrays", []):
        dtype = np.dtype(TYPES[array["type"]])
        content = stream.read(dtype.itemsize * prod(array["shape"]))
        arrays[array["name"]] = np.frombuffer(content, dtype).reshape(array["shape"])
    return message, arrays


def _write(stream: BinaryIO, answer: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    numbers = {np.dtype(dtype): number for number, dtype in TYPES.items()}
    answer["arrays"] = [
        {"name": name, "shape": list(array.shape), "type": numbers[array.dtype]}
        for name, array in arrays.items()
    ]
    content = json.dumps(answer).encode()
    parts = [array.tobytes() for array in arrays.values()]
    stream.write(b"".join([struct.pack("<I", len(content)), content, *parts]))


@contextmanager
def serving(socket: Path) -> Iterator[None]:
    """A server at a socket for the time of the context."""
    socket.unlink(missing_ok=True)
    with _Server(socket) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            socket.unlink()
