"""The dense graph on ONNX Runtime: nothing is allocated, copied or rebound in a warm decode step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import ModelEntry
from molkv_runtime.window import ExpertWindow

__all__ = ["OnnxGraph"]

BACKEND = "onnx"


@dataclass(frozen=True)
class _Binding:
    """Inputs and outputs of one step shape; its arrays are overwritten in place."""

    io_binding: Any
    input_ids: NDArray[np.int64]
    position: NDArray[np.int64]
    logits_index: NDArray[np.int64]
    logits: NDArray[np.float32]


class OnnxGraph:
    """A loaded ``dense.onnx`` with its self-attention cache.

    The cache is allocated once for the whole context and given to the graph as past and present
    both, so that a step appends to it in place. Bindings of single steps are kept: the window
    slides through at most 2·W places, so each is made once.

    Args:
        file: ``dense.onnx``; its data file lies beside it.
        model: the manifest's model entry.
        identity: the manifest's; the graph must carry the same.
        threads: of the engine; None uses all cores this process may run on.

    Raises:
        BundleError: the graph cannot be loaded, or is another checkpoint's.
    """

    def __init__(
        self, file: Path, model: ModelEntry, identity: str, *, threads: int | None = None
    ) -> None:
        self.model = model
        self._session = _load(file, threads or _available_cores())
        found = self._session.get_modelmeta().custom_metadata_map.get("molkv.identity")
        if found != identity:
            raise BundleError(
                f"{file}: identity is {found}, the manifest says {identity}",
                fix="graph and manifest must come from one export",
            )
        shape = (1, model.num_key_value_heads, model.max_position_embeddings, model.head_dim)
        self._cache = {
            f"{kind}.{layer}": _tensor(np.zeros(shape, np.float32))
            for layer in range(model.num_hidden_layers)
            for kind in ("key", "value")
        }
        self._start = _tensor(np.zeros(1, np.int64))
        self._decode_bindings: dict[tuple[int, int], _Binding] = {}

    def run(
        self,
        token_ids: NDArray[np.int64],
        position: int,
        window: ExpertWindow | None,
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
        binding = self._binding(len(token_ids), len(logits_index), window)
        binding.input_ids[0] = token_ids
        binding.position[0] = position
        binding.logits_index[:] = logits_index
        self._session.run_with_iobinding(binding.io_binding)
        return binding.logits[0]

    def _binding(self, tokens: int, logits_rows: int, window: ExpertWindow | None) -> _Binding:
        if tokens != 1 or logits_rows != 1:
            return self._bind(tokens, logits_rows, window)
        place = (0, 0) if window is None else window.bounds
        if place not in self._decode_bindings:
            self._decode_bindings[place] = self._bind(tokens, logits_rows, window)
        return self._decode_bindings[place]

    def _bind(self, tokens: int, logits_rows: int, window: ExpertWindow | None) -> _Binding:
        binding = _Binding(
            io_binding=self._session.io_binding(),
            input_ids=np.zeros((1, tokens), np.int64),
            position=np.zeros(1, np.int64),
            logits_index=np.zeros(logits_rows, np.int64),
            logits=np.zeros((1, logits_rows, self.model.vocab_size), np.float32),
        )
        io_binding = binding.io_binding
        for name in ("input_ids", "position", "logits_index"):
            io_binding.bind_ortvalue_input(name, _tensor(getattr(binding, name)))
        io_binding.bind_ortvalue_output("logits", _tensor(binding.logits))
        for name, cache in self._cache.items():
            io_binding.bind_ortvalue_input(f"past_{name}", cache)
            io_binding.bind_ortvalue_output(f"present_{name}", cache)
        if window is not None:
            io_binding.bind_ortvalue_input("expert_start", self._start)
            for layer, rows in enumerate(window.planes()):
                for kind in ("keys", "key_scales", "values", "value_scales"):
                    plane = getattr(rows, kind)
                    if plane is not None:
                        io_binding.bind_ortvalue_input(f"expert_{kind}.{layer}", _tensor(plane))
        return binding


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _tensor(array: NDArray[Any]) -> Any:
    """The array as an engine tensor over the same memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _load(file: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001 - the library's errors share no other base
        raise BundleError(
            f"{file}: ONNX Runtime {onnxruntime.__version__} cannot load it: {error}",
            fix="copy the bundle again, or update onnxruntime",
        ) from None
