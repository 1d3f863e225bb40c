"""Runs ``dense.mlpackage`` for a session: Core ML where there is Core ML, else an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import coremltools
import numpy as np
from coremltools.models.utils import load_spec
from numpy.typing import NDArray

from molkv_export.backends.coreml.mil_evaluator import MilProgram
from molkv_export.backends.coreml.package import COMPUTE_UNITS, DECODE, PREFILL
from molkv_runtime.dequantize import dequantize
from molkv_runtime.engines import ExpertPlanes
from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import Manifest
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.sessions.metadata import check_metadata, require_limits

__all__ = ["CoreMLGraph", "half_rows", "runs_core_ml"]

Array = NDArray[Any]
_COMPUTE_UNITS = {
    "cpuAndGPU": coremltools.ComputeUnit.CPU_AND_GPU,
    "cpuAndNeuralEngine": coremltools.ComputeUnit.CPU_AND_NE,
    "cpuOnly": coremltools.ComputeUnit.CPU_ONLY,
    "all": coremltools.ComputeUnit.ALL,
}


def runs_core_ml() -> bool:
    """Whether this system has Core ML; elsewhere the program is evaluated op by op."""
    return sys.platform == "darwin"


class _Program(Protocol):
    """A loaded package: its two functions on one state."""

    metadata: dict[str, str]

    def predict(self, function: str, inputs: dict[str, Array]) -> Array: ...


class CoreMLGraph:
    """A loaded ``dense.mlpackage`` with its states: the self-attention cache, the expert window.

    Both are kept inside. A new sequence starts at position 0 without clearing anything: what was
    written for positions at or after the current one is masked.

    Args:
        package: ``dense.mlpackage``.
        manifest: the bundle's; the package must carry the same identity, model and precision.

    Raises:
        BundleError: it cannot be loaded, or is another checkpoint's.
    """

    def __init__(self, package: Path, manifest: Manifest) -> None:
        self.model = manifest.model
        self._program: _Program = (
            _CoreMLProgram(package) if runs_core_ml() else _EvaluatedProgram(package)
        )
        limits = require_limits(manifest, "coreml")
        check_metadata(package, self._program.metadata, manifest, backend="coreml")
        self.dense = manifest.backends["coreml"].dense
        self.context = limits.context
        self.chunk = limits.chunk
        self.cache_tokens = limits.cache_tokens

    def run(
        self,
        token_ids: NDArray[np.int64],
        position: int,
        window: ExpertPlanes | None,
        logits_index: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Run T new tokens.

        Args:
            token_ids: int64 [T].
            position: absolute position of the first.
            window: the expert window; of its rows, the T new tokens' are read, which are its last.
            logits_index: int64 [R], ascending: which of the T positions to compute logits for.

        Returns:
            float32 [R, V].
        """
        rows = (
            []
            if window is None
            else [half_rows(layer, len(token_ids)) for layer in window.planes()]
        )
        embeddings = None if window is None else window.embeddings()
        wanted = set(logits_index.tolist())
        logits = []
        for first, last in self._steps(len(token_ids), position, wanted):
            tokens = token_ids if embeddings is None else embeddings
            result = self._step(tokens[first:last], position + first, rows, first)
            if last - 1 in wanted:
                logits.append(result)
        return np.stack(logits)

    @property
    def evaluated(self) -> MilProgram | None:
        """The program where it is evaluated; None where Core ML runs it."""
        return self._program.program if isinstance(self._program, _EvaluatedProgram) else None

    def _steps(self, count: int, position: int, wanted: set[int]) -> list[tuple[int, int]]:
        """How T tokens are cut: a step gives one position's logits, so each wanted one ends one.

        A padded chunk that would reach beyond the cache is run token by token.
        """
        steps, first = [], 0
        while first < count:
            last = min(first + self.chunk, count)
            last = min([index + 1 for index in wanted if first <= index < last], default=last)
            if position + first + self.chunk > self.cache_tokens:
                last = first + 1
            steps.append((first, last))
            first = last
        return steps

    def _step(
        self, new: Array, position: int, rows: list[dict[str, Array]], first: int
    ) -> NDArray[np.float32]:
        """One step over new tokens, given as ids [T] or as embeddings [T, d]."""
        count = len(new)
        function, tokens = (DECODE, 1) if count == 1 else (PREFILL, self.chunk)
        inputs: dict[str, Array] = {"position": np.array([position], np.int32)}
        if new.ndim == 1:
            inputs["input_ids"] = _extended(new.astype(np.int32), tokens)[None]
        else:
            inputs["embeddings"] = _extended(new, tokens)[None]
        if function == PREFILL:
            inputs["logits_index"] = np.array([count - 1], np.int32)
        for layer, planes in enumerate(rows):
            for name, plane in planes.items():
                inputs[f"expert_{name}_{layer}"] = _extended(plane[first : first + count], tokens)
        logits: NDArray[np.float32] = self._program.predict(function, inputs)[0, 0]
        return logits


class _EvaluatedProgram:
    def __init__(self, package: Path) -> None:
        self.program = program = MilProgram(package)
        self.metadata = program.metadata
        self._functions = {name: program.function(name) for name in (PREFILL, DECODE)}
        self._state = self._functions[DECODE].make_state()

    def predict(self, function: str, inputs: dict[str, Array]) -> Array:
        return self._functions[function].run(inputs, self._state)["logits"]


class _CoreMLProgram:
    def __init__(self, package: Path) -> None:
        try:
            specification = load_spec(str(next(package.rglob("*.mlmodel"))))
            self.metadata = dict(specification.description.metadata.userDefined)
            units = _COMPUTE_UNITS[self.metadata.get("molkv.compute_units", COMPUTE_UNITS)]
            self._functions = {
                name: coremltools.models.MLModel(
                    str(package), function_name=name, compute_units=units
                )
                for name in (PREFILL, DECODE)
            }
            self._state = self._functions[DECODE].make_state()
        except Exception as error:  # noqa: BLE001 - the library's errors share no other base
            raise BundleError(
                f"{package}: Core ML cannot load it: {error}",
                fix="copy the bundle again, or update the system: it needs iOS 18 or macOS 15",
            ) from None

    def predict(self, function: str, inputs: dict[str, Array]) -> Array:
        outputs = self._functions[function].predict(inputs, state=self._state)
        logits: Array = outputs["logits"]
        return logits


def half_rows(layer: LayerRows, tokens: int | None) -> dict[str, Array]:
    """The last rows of a layer's window, or all, dequantized to float16: ``keys``, ``values``."""
    last = slice(None if tokens is None else -tokens, None)
    planes = {"values": (layer.values, layer.value_scales)}
    if layer.keys is not None:
        planes["keys"] = (layer.keys, layer.key_scales)
    rows = {}
    for name, (vectors, scales) in planes.items():
        exact = dequantize(vectors[last], None if scales is None else scales[last])
        rows[name] = exact.astype(np.float16)
    return rows


def _extended(array: Array, length: int) -> Array:
    """Padded with zeros at the end of the first axis."""
    missing = [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, missing)
