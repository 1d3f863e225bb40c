"""Writes ``dense.mlpackage``: prefill and decode as two functions that share their weights."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import coremltools
from coremltools.converters.mil.mil import Program
from coremltools.models.utils import (
    MultiFunctionDescriptor,
    load_spec,
    save_multifunction,
)

from molkv_export.backends.coreml.compression import check_precision, compress
from molkv_export.backends.coreml.decoder import decode_program, prefill_program
from molkv_export.backends.coreml.static_shapes import StaticShapes
from molkv_export.backends.coreml.target import OPSET
from molkv_export.backends.lowered_graph import LoweredGraph, graph_properties
from molkv_export.errors import ExportError
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.manifest import (
    BackendEntry,
    DensePrecision,
    EmbeddingPrecision,
    LimitsEntry,
)
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = [
    "COMPUTE_UNITS",
    "DECODE",
    "PACKAGE",
    "PREFILL",
    "required_operators",
    "write_dense_graph",
]

logger = logging.getLogger(__name__)

PACKAGE = "dense.mlpackage"
PREFILL = "prefill"
DECODE = "decode"
COMPUTE_UNITS = "cpuAndGPU"
"""`MLComputeUnits` to load it with: stateful models are known to fail on the Neural Engine
(docs/ios.md)."""

_SPECIFICATION_VERSION = 9


def required_operators() -> dict[str, int]:
    """The specification of ML programs that the package needs: version 9 is iOS 18."""
    return {"CoreML": _SPECIFICATION_VERSION}


def write_dense_graph(
    checkpoint: Checkpoint,
    folder: Path,
    experts: ExpertPrecision,
    identity: str,
    dense: DensePrecision = "fp16",
    embedding: EmbeddingPrecision | None = None,
    *,
    chunk: int | None = None,
) -> LoweredGraph:
    """Write ``dense.mlpackage``.

    Args:
        checkpoint: the trained model.
        folder: an existing folder.
        experts: how the blob stores its rows; the program takes them as float16 in any case.
        identity: the checkpoint's, in hexadecimal; kept in the model's metadata.
        dense: precision of the dense weights.
        embedding: precision of the input embedding in the rows; None puts it into the package.
        chunk: tokens of a prefill step; None chooses.

    Returns:
        the files of the package, and what it was compiled for.

    Raises:
        ExportError: the precision does not fit the model, or a weight does not fit float16.
    """
    config = checkpoint.config
    check_precision(config, dense)
    shapes = StaticShapes.of(config, chunk)
    limits = LimitsEntry(
        chunk=shapes.chunk,
        context=config.max_position_embeddings,
        cache_tokens=shapes.cache_tokens,
        window=config.expert_window if config.has_experts else 0,
    )
    properties = graph_properties(
        config,
        identity=identity,
        experts=experts,
        dense=dense,
        cache="fp16",
        limits=limits,
        embedding=embedding,
    )
    properties["molkv.compute_units"] = COMPUTE_UNITS
    package = folder / PACKAGE
    with _quietly(), tempfile.TemporaryDirectory(dir=folder, prefix=".coreml-") as scratch:
        descriptor = MultiFunctionDescriptor()
        for name, make in ((PREFILL, prefill_program), (DECODE, decode_program)):
            model = _lower(make(checkpoint, shapes, embedding))
            model = compress(model, dense)
            part = str(Path(scratch) / f"{name}.mlpackage")
            model.save(part)
            descriptor.add_function(part, src_function_name="main", target_function_name=name)
        descriptor.default_function_name = DECODE
        joined = Path(scratch) / PACKAGE
        save_multifunction(descriptor, str(joined))
        _write_properties(joined, properties)
        joined.rename(package)
    entry = BackendEntry(
        graph=PACKAGE,
        dense=dense,
        cache="fp16",
        operators=required_operators(),
        delegates=[],
        limits=limits,
        compute_units=COMPUTE_UNITS,
    )
    return LoweredGraph(sorted(path for path in package.rglob("*") if path.is_file()), entry)


@contextmanager
def _quietly() -> Iterator[None]:
    """Progress bars of coremltools on standard error, and its warnings about rows of zeros."""
    with redirect_stderr(io.StringIO()) as noise, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.debug("coremltools: %s", noise.getvalue())


def _lower(program: Program) -> Any:
    try:
        return coremltools.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=OPSET,
            skip_model_load=True,
        )
    except (ValueError, RuntimeError) as error:
        raise ExportError(
            f"coremltools {coremltools.__version__} cannot lower the model: {error}",
            fix="use the version that constraints.txt names",
        ) from error


def _write_properties(package: Path, properties: dict[str, str]) -> None:
    (file,) = package.rglob("*.mlmodel")
    specification = load_spec(str(file))
    specification.description.metadata.userDefined.update(properties)
    file.write_bytes(specification.SerializeToString(deterministic=True))
