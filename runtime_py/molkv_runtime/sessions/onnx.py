"""The dense graph on ONNX Runtime: a warm decode step allocates, copies and rebinds nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.engines import ExpertPlanes
from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import Manifest
from molkv_runtime.onnx_runtime import onnxruntime
from molkv_runtime.sessions.metadata import check_metadata

__all__ = ["OnnxGraph"]

_CACHE_TYPES: dict[str, Any] = {"fp32": np.float32, "int8": np.int8}

BACKEND = "onnx"


@dataclass(frozen=True)
class _Buffers:
    """What a step of one shape reads and writes; overwritten in place by every such step."""

    input_ids: NDArray[np.int64]
    position: NDArray[np.int64]
    logits_index: NDArray[np.int64]
    logits: NDArray[np.float32]

    @classmethod
    def of(cls, tokens: int, logits_rows: int, vocabulary_size: int) -> _Buffers:
        return cls(
            input_ids=np.zeros((1, tokens), np.int64),
            position=np.zeros(1, np.int64),
            logits_index=np.zeros(logits_rows, np.int64),
            logits=np.zeros((1, logits_rows, vocabulary_size), np.float32),
        )


class OnnxGraph:
    """A loaded ``dense.onnx`` with its self-attention cache.

    The cache is allocated once for the whole context and given to the graph as past and present
    both, so that a step appends to it in place. Bindings of single steps are kept, one for each
    place that the window slides through, and share their buffers.

    Args:
        file: ``dense.onnx``; its data file lies beside it.
        manifest: the bundle's; the graph must carry the same identity, model and precision.
        threads: of ONNX Runtime.
        operator_library: the native op; None runs the function inside the file.

    Raises:
        BundleError: the graph cannot be loaded, or is another checkpoint's.
    """

    def __init__(
        self,
        file: Path,
        manifest: Manifest,
        *,
        threads: int,
        operator_library: Path | None = None,
    ) -> None:
        self.model = model = manifest.model
        self.chunk = model.max_position_embeddings  # any length
        self._session = _load(file, threads, operator_library)
        check_metadata(
            file, self._session.get_modelmeta().custom_metadata_map, manifest, backend="onnx"
        )
        cache = manifest.backends["onnx"].cache
        if cache not in _CACHE_TYPES:
            raise BundleError(
                f"manifest.json: backends.onnx.cache is {cache}", fix="export with fp32 or int8"
            )
        shape = (1, model.num_key_value_heads, model.max_position_embeddings, model.head_dim)
        self._cache = {
            f"{kind}.{layer}": _tensor(np.zeros(shape, _CACHE_TYPES[cache]))
            for layer in range(model.num_hidden_layers)
            for kind in ("key", "value")
        }
        self._start = _tensor(np.zeros(1, np.int64))
        self._takes_ids = manifest.quantization.embedding is None
        self._decode_buffers = _Buffers.of(1, 1, model.vocab_size)
        self._decode_bindings: dict[tuple[int, int], Any] = {}

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
            window: the expert window with the new tokens' rows appended; None without experts.
            logits_index: int64 [R], which of the T positions to compute logits for.

        Returns:
            float32 [R, V]; overwritten by a later step of the same shape.
        """
        if len(token_ids) == len(logits_index) == 1:
            buffers = self._decode_buffers
            place = (0, 0) if window is None else window.bounds
            binding = self._decode_bindings.get(place)
            if binding is None:
                binding = self._decode_bindings[place] = self._bind(buffers, window)
        else:
            buffers = _Buffers.of(len(token_ids), len(logits_index), self.model.vocab_size)
            binding = self._bind(buffers, window)
        buffers.input_ids[0] = token_ids
        buffers.position[0] = position
        buffers.logits_index[:] = logits_index
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = buffers.logits[0]
        return logits

    def _bind(self, buffers: _Buffers, window: ExpertPlanes | None) -> Any:
        io_binding = self._session.io_binding()
        names = ["position", "logits_index"]
        if self._takes_ids:
            names.append("input_ids")
        for name in names:
            io_binding.bind_ortvalue_input(name, _tensor(getattr(buffers, name)))
        io_binding.bind_ortvalue_output("logits", _tensor(buffers.logits))
        for name, cache in self._cache.items():
            io_binding.bind_ortvalue_input(f"past_{name}", cache)
            io_binding.bind_ortvalue_output(f"present_{name}", cache)
        if window is not None:
            embeddings = window.embeddings()
            if embeddings is not None:
                io_binding.bind_ortvalue_input("embeddings", _tensor(embeddings[None]))
            io_binding.bind_ortvalue_input("expert_start", self._start)
            for layer, rows in enumerate(window.planes()):
                for kind in ("keys", "key_scales", "values", "value_scales"):
                    plane = getattr(rows, kind)
                    if plane is not None:
                        io_binding.bind_ortvalue_input(f"expert_{kind}.{layer}", _tensor(plane))
        return io_binding


def _tensor(array: NDArray[Any]) -> Any:
    """The array as an engine tensor over the same memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _load(file: Path, threads: int, operator_library: Path | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    if operator_library is not None:
        options.register_custom_ops_library(str(operator_library))
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the library's errors share no other base
        raise BundleError(
            f"{file}: ONNX Runtime {onnxruntime.__version__} cannot load it: {error}",
            fix="copy the bundle again, or update onnxruntime",
        ) from None
