"""The backends: what each can write, what it needs installed, and how it is reached.

Their libraries take seconds to import and are extras, so that happens here, when one is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from molkv_export.backends.lowered_graph import LoweredGraph
from molkv_export.backends.quiet import quiet_libraries
from molkv_export.cache_scales import CacheScales
from molkv_export.errors import ExportError
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.manifest import CachePrecision, DensePrecision, EmbeddingPrecision
from molkv_runtime.row_geometry import ExpertPrecision

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BACKENDS",
    "Backend",
    "check_model",
    "choose_caches",
    "choose_precisions",
    "stored_tensors",
    "write_dense_graph",
]


@dataclass(frozen=True)
class Backend:
    """What a backend offers.

    Attributes:
        precisions: of the dense weights, its default first.
        caches: precisions of the self-attention cache, its default first.
        packages: what it needs installed; the manifest's `producer` names their versions.
        extra: the extra of molkv that installs them.
    """

    precisions: tuple[DensePrecision, ...]
    caches: tuple[CachePrecision, ...]
    packages: tuple[str, ...]
    extra: str

    def require_packages(self, name: str) -> None:
        """Check that the packages are installed.

        Raises:
            ExportError: one is not.
        """
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                raise ExportError(
                    f"backend {name} needs the package {package}, which is not installed",
                    fix=f"pip install 'molkv[{self.extra}]'",
                ) from None


BACKENDS: dict[str, Backend] = {
    "onnx": Backend(("fp32", "int8", "int4"), ("fp32", "int8"), ("onnx", "onnxruntime"), "export"),
    "executorch": Backend(
        ("fp32", "int8", "int4"), ("fp32",), ("executorch", "torchao"), "executorch"
    ),
    "coreml": Backend(
        ("fp16", "int8", "int4", "palettized4"),
        ("fp16",),
        ("coremltools", "scikit-learn"),
        "coreml",
    ),
}


def choose_precisions(
    backends: Sequence[str], dense: str | Mapping[str, str] | None
) -> dict[str, DensePrecision]:
    """The precision of every backend's dense weights.

    Args:
        backends: names of distinct backends.
        dense: one for all backends, one for each backend named, or None; a backend that gets none
            has its default.

    Raises:
        ExportError: a backend does not exist, is not installed, or lacks the precision; or a
            precision is given for a backend that is not exported.
    """
    if not backends or len(set(backends)) != len(backends):
        raise ExportError(f"backends is {list(backends)}", fix="name each once")
    if unknown := [name for name in backends if name not in BACKENDS]:
        raise ExportError(f"backend is {unknown[0]!r}", fix=f"one of {', '.join(BACKENDS)}")
    wanted = dict(dense) if isinstance(dense, Mapping) else dict.fromkeys(backends, dense)
    if missing := [name for name in wanted if name not in backends]:
        raise ExportError(
            f"dense is given for {missing[0]}, which is not exported",
            fix=f"leave it out, or add --backend {missing[0]}",
        )
    chosen = {name: _precision(name, wanted.get(name)) for name in backends}
    for name in backends:
        BACKENDS[name].require_packages(name)
    return chosen


def _precision(name: str, wanted: str | None) -> DensePrecision:
    precisions = BACKENDS[name].precisions
    found = [precision for precision in precisions if wanted in (None, precision)]
    if not found:
        raise ExportError(
            f"dense is {wanted!r}, which backend {name} does not have",
            fix=f"{name} has {', '.join(precisions)}; --dense {name}={precisions[0]} sets that of "
            "one backend",
        )
    return found[0]


def choose_caches(backends: Sequence[str], cache: str | None) -> dict[str, CachePrecision]:
    """The precision of every backend's self-attention cache.

    Args:
        backends: names of distinct backends.
        cache: for the backends that have it; None is every backend's default.

    Raises:
        ExportError: none of the backends has it.
    """
    chosen = {name: BACKENDS[name].caches[0] for name in backends}
    if cache is None:
        return chosen
    wanted = {
        name: precision
        for name in backends
        for precision in BACKENDS[name].caches
        if precision == cache
    }
    if not wanted:
        offered = [f"{name} has {', '.join(BACKENDS[name].caches)}" for name in backends]
        raise ExportError(
            f"cache is {cache!r}, which no exported backend has", fix="; ".join(offered)
        )
    return chosen | wanted


def check_model(backend: str, config: ModelConfig, dense: DensePrecision) -> None:
    """Check before any work that a backend can take a model at a precision.

    Raises:
        ExportError: it cannot.
    """
    if backend == "onnx":
        from molkv_export.backends.onnx import check_model as check_onnx

        check_onnx(config, dense)
    elif backend == "coreml":
        with quiet_libraries():
            from molkv_export.backends.coreml.compression import check_precision

            check_precision(config, dense)


def write_dense_graph(
    backend: str,
    checkpoint: Checkpoint,
    folder: Path,
    experts: ExpertPrecision,
    identity: str,
    dense: DensePrecision,
    cache_scales: CacheScales | None = None,
    embedding: EmbeddingPrecision | None = None,
) -> LoweredGraph:
    """Write a backend's dense graph.

    Args:
        backend: its name.
        checkpoint: the trained model.
        folder: an existing folder.
        experts: how the window's rows are stored.
        identity: the checkpoint's, in hexadecimal; kept in the graph.
        dense: precision of the dense weights.
        cache_scales: of an int8 self-attention cache, which only ONNX has.
        embedding: precision of the input embedding in the rows; None puts it into the graph.

    Raises:
        ExportError: the backend cannot represent the model.
    """
    with quiet_libraries():
        if backend == "executorch":
            from molkv_export.backends.executorch import lowering

            return lowering.write_dense_graph(
                checkpoint, folder, experts, identity, dense, embedding
            )
        if backend == "coreml":
            from molkv_export.backends.coreml import package

            return package.write_dense_graph(
                checkpoint, folder, experts, identity, dense, embedding
            )
        from molkv_export.backends import onnx

        return onnx.write_dense_graph(
            checkpoint, folder, experts, identity, dense, cache_scales, embedding
        )


def stored_tensors(
    backend: str, checkpoint: Checkpoint, dense: DensePrecision
) -> dict[str, Tensor]:
    """The matrices that ONNX's or ExecuTorch's graph stores otherwise than the checkpoint.

    Returns:
        float32, by their checkpoint names.

    Raises:
        ExportError: what the backend quantizes with is not installed.
    """
    if dense == "fp32":
        return {}
    BACKENDS[backend].require_packages(backend)
    with quiet_libraries():
        if backend == "executorch":
            from molkv_export.backends.executorch import stored_weights

            return stored_weights.stored_tensors(checkpoint, dense)
        from molkv_export.backends.onnx.stored_weights import stored_tensors as stored_by_onnx

        return stored_by_onnx(checkpoint, dense)
