"""Finished expert rows, slice by slice: computing, quantizing and packing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from molkv_export.errors import ExportError
from molkv_export.quantize import Quantized, half_embeddings, key_precision, quantize
from molkv_export.reparameterize import ExpertTable
from molkv_runtime.errors import MolkvError
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import LayerRows, RowLayout

__all__ = ["ExpertPipeline"]

# One is computed while the one before it is packed and handed on.
_SLICES_AHEAD = 2
# A GPU computes faster than one thread quantizes.
_GPU_QUANTIZERS = 4


@dataclass(frozen=True)
class _QuantizedExpert:
    keys: Quantized | None
    values: Quantized


@dataclass(frozen=True)
class _Slice:
    """What is under way: futures by layer and expert."""

    ids: range
    embeddings: torch.Tensor
    experts: list[list[_Pending]]


class ExpertPipeline:
    """Computes the rows of an expert table.

    Every matrix product is computed by a single thread, and threads work at different experts: the
    bits of a product can depend on how many threads share it, and so would the rows.

    Args:
        table: the experts.
        layout: of the rows; whether they carry the input embedding.
        experts: their precision.
        threads: that compute at the same time; by default as many as torch would use. The rows do
            not depend on it.
    """

    def __init__(
        self,
        table: ExpertTable,
        layout: RowLayout,
        experts: ExpertPrecision,
        threads: int | None = None,
    ) -> None:
        self._table = table
        self._layout = layout
        self._precision = experts
        gpu = table.device.type == "cuda"
        self._threads = 1 if gpu else threads or torch.get_num_threads()
        self._quantizers = _GPU_QUANTIZERS if gpu else 1

    def rows(self, slices: Sequence[range]) -> Iterator[NDArray[np.uint8]]:
        """The rows of some slices of the vocabulary, in the order given.

        Args:
            slices: token ids of each slice. A row's bits can depend on which others are in its
                slice.

        Yields:
            uint8 [rows, row_stride] for each slice; later slices are computed meanwhile.

        Raises:
            CheckpointError: an embedding is not finite.
            ExportError: an expert or an embedding cannot be represented in the precision.
        """
        with _single_threaded_products(), _Workers(self._threads, self._quantizers) as workers:
            ahead: deque[_Slice] = deque()
            for ids in slices:
                ahead.append(self._begin(ids, workers))
                if len(ahead) == _SLICES_AHEAD:
                    yield self._packed(ahead.popleft())
            while ahead:
                yield self._packed(ahead.popleft())

    def _begin(self, ids: range, workers: _Workers) -> _Slice:
        """Start to compute a slice."""
        embeddings = self._table.embeddings(ids.start, ids.stop)
        config = self._table.config
        experts = [
            [
                workers.compute.submit(self._compute, workers, layer, expert, embeddings)
                for expert in range(config.num_experts)
            ]
            for layer in range(config.num_hidden_layers)
        ]
        return _Slice(ids, embeddings, experts)

    def _compute(
        self, workers: _Workers, layer: int, expert: int, embeddings: torch.Tensor
    ) -> Future[_QuantizedExpert]:
        """Compute an expert and leave it to the next thread to quantize it."""
        workers.unquantized.acquire()
        try:
            vectors = self._table.expert(layer, expert, embeddings)
            return workers.quantize.submit(self._quantize, workers, vectors.keys, vectors.values)
        except BaseException:
            workers.unquantized.release()
            raise

    def _quantize(
        self,
        workers: _Workers,
        keys: NDArray[np.float32] | None,
        values: NDArray[np.float32],
    ) -> _QuantizedExpert:
        try:
            return _QuantizedExpert(
                None if keys is None else quantize(keys, key_precision(self._precision)),
                quantize(values, self._precision),
            )
        finally:
            workers.unquantized.release()

    def _packed(self, part: _Slice) -> NDArray[np.uint8]:
        try:
            layers = [
                _layer_rows([expert.result().result() for expert in layer])
                for layer in part.experts
            ]
            embeddings = None
            if self._layout.embedding_section is not None:
                embeddings = half_embeddings(part.embeddings.cpu().numpy())
            return self._layout.pack(layers, embeddings)
        except MolkvError as error:
            raise ExportError(
                f"{self._table.checkpoint.path}: token ids {part.ids.start} to "
                f"{part.ids.stop - 1}: {error.problem}",
                fix=error.fix,
            ) from None


_Pending = Future[Future[_QuantizedExpert]]


class _Workers:
    """The threads of a pipeline, and how many float vectors may be between them."""

    def __init__(self, threads: int, quantizers: int) -> None:
        # New threads take their number of threads from the process only at some operations.
        self.compute = ThreadPoolExecutor(
            threads, "reparameterize", initializer=torch.set_num_threads, initargs=(1,)
        )
        self.quantize = ThreadPoolExecutor(quantizers, "quantize")
        self.unquantized = BoundedSemaphore(threads + quantizers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What is under way ends by itself; what has not begun is not begun.
        self.compute.shutdown(cancel_futures=True)
        self.quantize.shutdown(cancel_futures=True)


@contextmanager
def _single_threaded_products() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _layer_rows(experts: Sequence[_QuantizedExpert]) -> LayerRows:
    """The experts of a layer, side by side."""
    keys = [expert.keys for expert in experts if expert.keys is not None]
    values = [expert.values for expert in experts]
    return LayerRows(
        keys=np.stack([part.values for part in keys], axis=1) if keys else None,
        values=np.stack([part.values for part in values], axis=1),
        key_scales=_scales(keys),
        value_scales=_scales(values),
    )


def _scales(parts: Sequence[Quantized]) -> NDArray[Any] | None:
    scales = [part.scales for part in parts if part.scales is not None]
    return np.stack(scales, axis=1) if scales else None
