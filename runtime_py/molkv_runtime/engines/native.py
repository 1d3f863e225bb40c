"""The native engine: the C++ core, as phones run it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.blob import ReadStats
from molkv_runtime.bundle import Bundle
from molkv_runtime.engines.engine import embedding_buffer
from molkv_runtime.errors import BundleError
from molkv_runtime.native import (
    NativeBlob,
    NativeSampler,
    NativeTextStream,
    NativeTokenizer,
    NativeWindow,
    load_library,
    operator_library,
)
from molkv_runtime.native.blob import BlobOptions, Prefetch
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.sampler import SamplingConfig

__all__ = ["NativeEngine"]


class NativeEngine:
    """The default.

    Raises:
        NativeLibraryError: a library is missing or of another version.
    """

    def __init__(self) -> None:
        self._library = load_library()
        self.operator_library: Path | None = operator_library()

    def open_experts(self, bundle: Bundle, chunk: int, *, resident: bool = False) -> _Feed | None:
        """Opens the expert blob, perhaps into memory; None where the model has no experts."""
        files = bundle.expert_files
        if not files:
            return None
        blob = NativeBlob(files, BlobOptions(resident=resident))
        try:
            bundle.check_experts(blob)
        except BundleError:
            blob.close()
            raise
        return _Feed(blob, bundle.manifest.model.expert_window, chunk)

    def open_tokenizer(self, bundle: Bundle) -> _Codec | None:
        """Opens the tokenizer; None where the bundle has none."""
        file = bundle.tokenizer_file
        if file is None:
            return None
        tokenizer = NativeTokenizer(file)
        bundle.check_tokenizer(tokenizer.vocabulary_size, tokenizer.token_count)
        return _Codec(tokenizer)

    def sampler(self, config: SamplingConfig) -> NativeSampler:
        """Makes a sampler."""
        return NativeSampler(config)


class _Feed:
    def __init__(self, blob: NativeBlob, window: int, chunk: int) -> None:
        self._blob = blob
        self._window = NativeWindow(blob.geometry, window, chunk)
        self._embeddings = embedding_buffer(blob.geometry, chunk)
        self._tokens = 0
        self._prefetch: Prefetch | None = None

    @property
    def bounds(self) -> tuple[int, int]:
        return self._window.bounds

    @property
    def nbytes(self) -> int:
        return self._window.nbytes

    @property
    def stats(self) -> ReadStats:
        return self._blob.stats

    def planes(self) -> list[LayerRows]:
        return self._window.planes()

    def embeddings(self) -> NDArray[np.float32] | None:
        return None if self._embeddings is None else self._embeddings[: self._tokens]

    def prefetch(self, token_ids: NDArray[np.int64]) -> None:
        self._drop_prefetch()
        self._prefetch = self._blob.prefetch(token_ids)

    def append(self, token_ids: NDArray[np.int64]) -> None:
        if self._prefetch is None and len(token_ids) == 1:
            rows = self._blob.read_row(int(token_ids[0]))
        else:
            rows = self._prefetched(token_ids).wait()
        self._window.append(rows, self._blob.row_stride)
        self._tokens = len(token_ids)
        if self._embeddings is not None:
            self._blob.embeddings(rows, self._embeddings)
        self._drop_prefetch()

    def reset(self) -> None:
        self._drop_prefetch()
        self._window.reset()

    def close(self) -> None:
        self._drop_prefetch()
        self._blob.close()

    def _prefetched(self, token_ids: NDArray[np.int64]) -> Prefetch:
        under_way = self._prefetch
        if under_way is None or not np.array_equal(under_way.token_ids, token_ids):
            self._drop_prefetch()
            under_way = self._prefetch = self._blob.prefetch(token_ids)
        return under_way

    def _drop_prefetch(self) -> None:
        if self._prefetch is not None:
            self._prefetch.close()
            self._prefetch = None


class _Codec:
    def __init__(self, tokenizer: NativeTokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def decode(self, token_ids: Iterable[int]) -> str:
        return self._tokenizer.decode(token_ids)

    def find(self, content: str) -> int | None:
        return self._tokenizer.find(content)

    def stream(self, prompt_ids: Iterable[int]) -> NativeTextStream:
        return NativeTextStream(self._tokenizer, prompt_ids=prompt_ids, skip_special_tokens=True)
