"""The reference engine: NumPy, and the tokenizers library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from molkv_runtime.blob import Blob, ReadStats
from molkv_runtime.bundle import Bundle
from molkv_runtime.engines.engine import embedding_buffer
from molkv_runtime.errors import UsageError
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.sampler import Sampler, SamplingConfig
from molkv_runtime.text import TextStream
from molkv_runtime.window import ExpertWindow

__all__ = ["ReferenceEngine"]


class ReferenceEngine:
    """What the native engine is compared with."""

    operator_library: Path | None = None

    def open_experts(self, bundle: Bundle, chunk: int, *, resident: bool = False) -> _Feed | None:
        """Opens the expert blob, on storage; None where the model has no experts."""
        if resident:
            raise UsageError(
                "engine reference reads expert rows from storage only",
                fix="use the native engine, or experts_mode storage",
            )
        blob = bundle.open_experts()
        return None if blob is None else _Feed(blob, bundle.manifest.model.expert_window, chunk)

    def open_tokenizer(self, bundle: Bundle) -> _Codec | None:
        """Opens the tokenizer; None where the bundle has none."""
        tokenizer = bundle.load_tokenizer()
        return None if tokenizer is None else _Codec(tokenizer)

    def sampler(self, config: SamplingConfig) -> Sampler:
        """Makes a sampler."""
        return Sampler(config)


class _Feed:
    def __init__(self, blob: Blob, window: int, chunk: int) -> None:
        self._blob = blob
        self._window = ExpertWindow(blob.layout, window, chunk)
        self._embeddings = embedding_buffer(blob.geometry, chunk)
        self._tokens = 0

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
        """Nothing: the reference reads when rows are asked for."""

    def append(self, token_ids: NDArray[np.int64]) -> None:
        batch = self._blob.read(token_ids)
        self._window.append(batch)
        self._tokens = len(token_ids)
        stored = self._blob.layout.embeddings(batch.rows)
        if self._embeddings is not None and stored is not None:
            self._embeddings[: self._tokens] = stored[batch.index]

    def reset(self) -> None:
        self._window.reset()

    def close(self) -> None:
        self._blob.close()


class _Codec:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        text.encode()  # the library's own error for a lone surrogate names no place
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Iterable[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def find(self, content: str) -> int | None:
        return self._tokenizer.token_to_id(content)

    def stream(self, prompt_ids: Iterable[int]) -> TextStream:
        return TextStream(self._tokenizer, prompt_ids=prompt_ids, skip_special_tokens=True)
