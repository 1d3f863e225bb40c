"""The dense graph of a bundle, on the runtime of its backend."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.bundle import Bundle
from molkv_runtime.engines import ExpertPlanes
from molkv_runtime.errors import UsageError
from molkv_runtime.sessions.onnx import OnnxGraph

__all__ = ["BACKENDS", "Graph", "default_backend", "open_graph"]

BACKENDS = ("onnx", "executorch")
"""Those that have a session in Python, the preferred first."""


class Graph(Protocol):
    """What a session runs. It keeps the self-attention cache."""

    @property
    def chunk(self) -> int:
        """The most new tokens of one run."""
        ...

    def run(
        self,
        token_ids: NDArray[np.int64],
        position: int,
        window: ExpertPlanes | None,
        logits_index: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Run new tokens; logits float32 [R, V] of the positions asked for."""
        ...


def default_backend(bundle: Bundle) -> str:
    """The backend to run where none is named: the preferred one of those that a bundle has."""
    there = [backend for backend in BACKENDS if backend in bundle.manifest.backends]
    return there[0] if there else BACKENDS[0]


def open_graph(
    bundle: Bundle, backend: str, *, threads: int, operator_library: Path | None
) -> Graph:
    """Open a bundle's dense graph.

    Args:
        bundle: an open bundle.
        backend: whose graph.
        threads: of its runtime.
        operator_library: the op's kernel for ONNX Runtime; None runs the function in the file.

    Raises:
        BundleError: the bundle lacks that backend, or the graph is not the manifest's.
        NativeLibraryError: a library that the graph needs is missing.
        UsageError: the backend runs elsewhere only, or its packages are not installed.
    """
    file = bundle.graph_file(backend)
    if backend == "onnx":
        return OnnxGraph(file, bundle.manifest, threads=threads, operator_library=operator_library)
    if backend == "executorch":
        from molkv_runtime.sessions.executorch import ExecutorchGraph

        return ExecutorchGraph(file, bundle.manifest, threads=threads)
    raise UsageError(
        f"backend {backend} has no session in Python", fix=f"use {' or '.join(BACKENDS)}"
    )
