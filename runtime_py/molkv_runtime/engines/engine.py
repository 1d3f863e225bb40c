"""The interfaces that every engine implements."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.blob import ReadStats
from molkv_runtime.bundle import Bundle
from molkv_runtime.row_geometry import DataType, RowGeometry
from molkv_runtime.row_layout import LayerRows
from molkv_runtime.sampler import SamplingConfig

__all__ = [
    "Engine",
    "ExpertFeed",
    "ExpertPlanes",
    "TextCodec",
    "TextPieces",
    "TokenSampler",
    "embedding_buffer",
]


class ExpertPlanes(Protocol):
    """The expert window's rows, as the dense graph reads them."""

    @property
    def bounds(self) -> tuple[int, int]:
        """First and last-plus-one plane row that the current step reads."""
        ...

    def planes(self) -> list[LayerRows]:
        """Views of the rows that the current step attends over, for every layer."""
        ...

    def embeddings(self) -> NDArray[np.float32] | None:
        """The new tokens' input embeddings, float32 [T, d]; None where rows carry none.

        The same memory in every step, overwritten by the next.
        """
        ...


class ExpertFeed(ExpertPlanes, Protocol):
    """Brings the rows of new tokens from the blob into the window."""

    @property
    def nbytes(self) -> int:
        """Bytes of the window's planes."""
        ...

    @property
    def stats(self) -> ReadStats:
        """What was read from the blob since it was opened."""
        ...

    def prefetch(self, token_ids: NDArray[np.int64]) -> None:
        """Start to read the rows that the next `append` will ask for."""
        ...

    def append(self, token_ids: NDArray[np.int64]) -> None:
        """Read the rows of a step's new tokens into the window."""
        ...

    def reset(self) -> None:
        """Forget all rows."""
        ...

    def close(self) -> None:
        """Close the blob."""
        ...


class TokenSampler(Protocol):
    """Chooses tokens (docs/sampling.md)."""

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The id of the token chosen from logits float32 [V]."""
        ...


class TextPieces(Protocol):
    """Text that comes token by token, never half a UTF-8 character."""

    def push(self, token_id: int) -> str:
        """The whole characters that a token completes."""
        ...

    def finish(self) -> str:
        """What was held back."""
        ...


class TextCodec(Protocol):
    """Text to token ids and back; special tokens are left out of the text."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of some ids."""
        ...

    def find(self, content: str) -> int | None:
        """The id of a token by its content."""
        ...

    def stream(self, prompt_ids: Iterable[int]) -> TextPieces:
        """Decodes what follows a prompt."""
        ...


class Engine(Protocol):
    """Makes the parts that a session runs beside the dense graph."""

    def __init__(self) -> None:
        """Loads what the engine needs."""
        ...

    @property
    def operator_library(self) -> Path | None:
        """The op's kernel for ONNX Runtime; None runs the function inside the graph's file."""
        ...

    def open_experts(
        self, bundle: Bundle, chunk: int, *, resident: bool = False
    ) -> ExpertFeed | None:
        """Opens the expert blob, perhaps into memory; None where the model has no experts."""
        ...

    def open_tokenizer(self, bundle: Bundle) -> TextCodec | None:
        """Opens the tokenizer; None where the bundle has none."""
        ...

    def sampler(self, config: SamplingConfig) -> TokenSampler:
        """Makes a sampler."""
        ...


def embedding_buffer(geometry: RowGeometry, chunk: int) -> NDArray[np.float32] | None:
    """Where the input embeddings of a step go: float32 [chunk, d]; None where rows carry none."""
    if geometry.embedding_dtype is DataType.NONE:
        return None
    return np.zeros((chunk, geometry.value_size), np.float32)
