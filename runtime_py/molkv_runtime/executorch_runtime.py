"""The one place that loads ExecuTorch, when a session asks for it: its binding needs torch.

ExecuTorch's Python runtime hands tensors over as torch's, so this backend, and no other, brings
torch into the process. Phones have the C++ runtime, which needs none of it. The binding itself is
loaded rather than ``executorch.runtime`` around it, which loads the whole exporter.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from molkv_runtime.errors import NativeLibraryError, UsageError
from molkv_runtime.native.executorch_kernel import KERNEL_OPERATOR, kernel_library

__all__ = ["ExecutorchRuntime", "load_executorch"]

logger = logging.getLogger(__name__)

# Which library of the wheel registers the operators of a namespace, and who brings the others.
_WHEEL_LIBRARIES = {
    "llama": "extension/llm/custom_ops/libcustom_ops_aot_lib",
    "quantized_decomposed": "kernels/quantized/libquantized_ops_aot_lib",
}
_SOURCES = {
    "molkv": "molkv's kernel library",
    "llama": "executorch's libcustom_ops_aot_lib",
    "quantized_decomposed": "executorch's libquantized_ops_aot_lib",
    "torchao": "torchao's kernels for ExecuTorch",
}


class ExecutorchRuntime:
    """ExecuTorch's binding, and the kernels loaded into it.

    Raises:
        UsageError: executorch or torch is not installed.
    """

    def __init__(self) -> None:
        # torch's own pool of threads would fight ExecuTorch's; read when torch is imported.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        try:
            self.version = version("executorch")
            self._torch: Any = importlib.import_module("torch")
            self._binding: Any = importlib.import_module("executorch.extension.pybindings._C")
        except (ImportError, PackageNotFoundError) as error:
            raise UsageError(
                f"backend executorch cannot be loaded: {error}",
                fix="pip install 'molkv[executorch]'",
            ) from None
        self.folder = Path(str(self._binding.__file__)).parents[2]
        self._kernels: ctypes.CDLL | None = None

    @property
    def operators(self) -> set[str]:
        """Names of the operators that are registered."""
        return set(self._binding._get_operator_names())

    @property
    def delegates(self) -> set[str]:
        """Names of the delegates that are registered."""
        return set(self._binding._get_registered_backend_names())

    def require(self, operators: Sequence[str], delegates: Sequence[str]) -> None:
        """Load what brings some operators, and check that all of them are there.

        Args:
            operators: full names, such as ``aten::add.out``.
            delegates: names, such as ``XnnpackBackend``.

        Raises:
            NativeLibraryError: one is missing; the message says which, and what would bring it.
        """
        namespaces = {operator.partition("::")[0] for operator in operators}
        for namespace in sorted(namespaces & _WHEEL_LIBRARIES.keys()):
            self._load_namespace(namespace, operators)
        if KERNEL_OPERATOR in operators and KERNEL_OPERATOR not in self.operators:
            self._kernels = load_shared_library(kernel_library(self.folder, self.version))
            self.cache_weights(enabled=True)
        there = self.operators
        for operator in operators:
            if operator not in there:
                source = _SOURCES.get(operator.partition("::")[0], "executorch's kernel libraries")
                raise NativeLibraryError(
                    f"operator {operator} is missing from ExecuTorch {self.version}: {source} "
                    "should bring it",
                    fix="install the version of executorch that the manifest's producer names",
                )
        if missing := sorted(set(delegates) - self.delegates):
            raise NativeLibraryError(
                f"delegate {missing[0]} is missing from ExecuTorch {self.version}",
                fix="install executorch from its official wheel",
            )

    def cache_weights(self, *, enabled: bool) -> None:
        """Whether methods loaded from now on share what XNNPACK packs of the same weights.

        Without molkv's kernel library, which a program without experts does not need, XNNPACK's
        setting stays: each method has its own copy.
        """
        if self._kernels is None:
            return
        if error := self._kernels.molkv_executorch_cache_weights(int(enabled)):
            logger.warning(
                "ExecuTorch %s keeps packed weights once for each method: error %#x",
                self.version,
                error,
            )

    def load_program(self, file: Path) -> Any:
        """Load a program.

        Raises:
            RuntimeError: what ExecuTorch says about it.
        """
        checks = self._binding.Verification.InternalConsistency
        return self._binding._load_program(str(file), program_verification=checks)

    def tensor(self, array: Any) -> Any:
        """A NumPy array as a tensor over the same memory."""
        return self._torch.from_numpy(array)

    @property
    def threads(self) -> int:
        """Threads of the process's one pool."""
        return int(self._binding._threadpool_get_thread_count())

    def set_threads(self, count: int) -> None:
        """Replace the pool. No program may be loaded: programs keep the pool they began with."""
        with _standard_error_discarded():
            if count != self.threads:
                self._binding._unsafe_reset_threadpool(count)

    def _load_namespace(self, namespace: str, operators: Sequence[str]) -> None:
        wanted = {name for name in operators if name.startswith(f"{namespace}::")}
        if wanted <= self.operators:
            return
        stem = self.folder / _WHEEL_LIBRARIES[namespace]
        for file in sorted(stem.parent.glob(f"{stem.name}.*")):
            load_shared_library(file)


@contextmanager
def _standard_error_discarded() -> Iterator[None]:
    """For notes that ExecuTorch writes to the descriptor itself, about a processor it looks at."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_shared_library(file: Path) -> ctypes.CDLL:
    """Load a library that registers operators; it stays for as long as the process.

    Raises:
        NativeLibraryError: it cannot be loaded.
    """
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise NativeLibraryError(
            f"{file}: cannot be loaded: {error}", fix="install executorch and molkv again"
        ) from None


@cache
def load_executorch() -> ExecutorchRuntime:
    """The process's one ExecuTorch.

    Raises:
        UsageError: executorch or torch is not installed.
    """
    return ExecutorchRuntime()
