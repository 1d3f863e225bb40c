"""The dense graph on ExecuTorch: one program, a method for chunks and one for single tokens."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from molkv_runtime.engines import ExpertPlanes
from molkv_runtime.errors import BundleError
from molkv_runtime.executorch_runtime import load_executorch
from molkv_runtime.manifest import Manifest
from molkv_runtime.sessions.metadata import check_metadata, require_limits

__all__ = ["ExecutorchGraph"]

logger = logging.getLogger(__name__)

BACKEND = "executorch"
_PLANES = ("keys", "key_scales", "values", "value_scales")
_METHODS = ("prefill", "decode")


# Those that have not been freed yet: they hold on to the pool of threads.
_open_graphs: weakref.WeakSet[ExecutorchGraph] = weakref.WeakSet()


class ExecutorchGraph:
    """A loaded ``dense.pte`` with its self-attention cache, which both methods share.

    Window inputs of single steps are kept, one set for each place that the window slides through:
    they are views of the window's own memory, which ExecuTorch reads in place.

    ExecuTorch has one pool of threads for the process: while another graph is open, its number of
    threads stays.

    Args:
        file: ``dense.pte``.
        manifest: the bundle's; the program must carry the same identity, model and precision.
        threads: of ExecuTorch.

    Raises:
        BundleError: the program cannot be loaded, or is another checkpoint's.
        NativeLibraryError: an operator that it needs is missing.
        UsageError: executorch is not installed.
    """

    def __init__(self, file: Path, manifest: Manifest, *, threads: int) -> None:
        entry = manifest.backends[BACKEND]
        self.chunk = require_limits(manifest, BACKEND).chunk
        self._runtime = load_executorch()
        self._runtime.require(list(entry.operators), entry.delegates)
        self._choose_threads(threads)
        self._methods = self._load(file)
        self._check(file, manifest)
        self._start = self._runtime.tensor(np.zeros(1, np.int64))
        self._token = np.zeros((1, 1), np.int64)
        self._position = np.zeros(1, np.int64)
        self._decode_inputs: dict[tuple[int, int], list[Any]] = {}
        _open_graphs.add(self)

    def run(
        self,
        token_ids: NDArray[np.int64],
        position: int,
        window: ExpertPlanes | None,
        logits_index: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Run T new tokens.

        Args:
            token_ids: int64 [T], T at most `chunk`.
            position: absolute position of the first.
            window: the expert window with the new tokens' rows appended; None without experts.
            logits_index: int64 [R], which of the T positions to compute logits for.

        Returns:
            float32 [R, V].
        """
        tensor = self._runtime.tensor
        self._position[0] = position
        if len(token_ids) == len(logits_index) == 1:
            self._token[0] = token_ids
            place = (0, 0) if window is None else window.bounds
            inputs = self._decode_inputs.get(place)
            if inputs is None:
                tokens = self._tokens(self._token, window)
                inputs = [tokens, tensor(self._position), *self._window(window)]
                self._decode_inputs[place] = inputs
            outputs = self._methods["decode"].call(inputs)
        else:
            tokens = self._tokens(np.ascontiguousarray(token_ids)[None], window)
            index = np.ascontiguousarray(logits_index)
            window_inputs = self._window(window)
            outputs = self._methods["prefill"].call(
                [tokens, tensor(self._position), *window_inputs, tensor(index)]
            )
        logits: NDArray[np.float32] = outputs[0].numpy()[0]
        return logits

    def _tokens(self, ids: NDArray[np.int64], window: ExpertPlanes | None) -> Any:
        """The new tokens' embeddings where rows carry them, else their ids [1, T]."""
        embeddings = None if window is None else window.embeddings()
        return self._runtime.tensor(ids if embeddings is None else embeddings[None])

    def _window(self, window: ExpertPlanes | None) -> list[Any]:
        if window is None:
            return []
        planes = [getattr(rows, name) for rows in window.planes() for name in _PLANES]
        tensors = [self._runtime.tensor(plane) for plane in planes if plane is not None]
        return [self._start, *tensors]

    def _choose_threads(self, threads: int) -> None:
        if not _open_graphs:
            self._runtime.set_threads(threads)
        elif threads != self._runtime.threads:
            logger.warning(
                "ExecuTorch keeps its %d threads, not %d, while another of its sessions is open",
                self._runtime.threads,
                threads,
            )

    def _load(self, file: Path) -> dict[str, Any]:
        try:
            program = self._runtime.load_program(file)
            names = [program.get_method_name(place) for place in range(program.num_methods())]
            if missing := {*_METHODS, "molkv_metadata"} - set(names):
                raise BundleError(
                    f"{file}: has no method {min(missing)}", fix="export with this version of molkv"
                )
            return {name: program.load_method(name) for name in names}
        except RuntimeError as error:
            raise BundleError(
                f"{file}: ExecuTorch {self._runtime.version} cannot load it: {error}",
                fix="copy the bundle again, or install the executorch that the manifest's "
                "producer names",
            ) from None

    def _check(self, file: Path, manifest: Manifest) -> None:
        """The program states what it was lowered from; a manifest that differs is not its own."""
        try:
            text = self._methods["molkv_metadata"].call([])[0]
            metadata = msgspec.json.decode(text, type=dict[str, str])
        except (msgspec.DecodeError, TypeError):
            metadata = {}
        check_metadata(file, metadata, manifest, backend="executorch")
