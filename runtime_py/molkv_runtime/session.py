"""A session: one sequence running through a bundle, rows read by token id as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molkv_runtime.blob import ReadStats
from molkv_runtime.bundle import Bundle
from molkv_runtime.engines import engine_named
from molkv_runtime.errors import ContextLengthError, TokenIdError, TokenizerError
from molkv_runtime.experts_mode import ExpertsMode, is_resident
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.sessions.graph import Graph, default_backend, open_graph
from molkv_runtime.statistics import SessionStats
from molkv_runtime.threads import worthwhile_threads

__all__ = ["Session", "Token"]

DEFAULT_CHUNK = 128
_Ids = NDArray[np.int64] | None
_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        id: its id.
        text: the whole characters that it completes, possibly none; empty without a tokenizer.
    """

    id: int
    text: str


class Session:
    """Runs one sequence at a time. Not thread-safe; sessions of one bundle are independent.

    Args:
        bundle: an open bundle.
        backend: whose dense graph to run; None chooses ``onnx``, or what the bundle has instead.
        engine: what runs beside the graph: ``native``, the C++ core that phones run, or
            ``reference``, the readable NumPy code. Both give the same tokens.
        threads: of the graph; None chooses: one for a narrow model, else all cores.
        chunk: the most tokens that prefill runs at once; a graph may have a lower limit.
        experts_mode: where expert rows are while the session runs: on ``storage``, read as they are
            needed; ``resident``, all read at the start and kept in memory; ``auto``, resident if
            the blob has at most `RESIDENT_BYTES`.
        graph: a loaded dense graph to run instead of the backend's own, such as Core ML's, which
            is no part of this package.

    Raises:
        BundleError: the bundle lacks that backend, or its parts do not belong together.
        BlobFormatError: the expert blob breaks its format.
        TokenizerError: the tokenizer cannot be used.
        NativeLibraryError: the native library is missing; nothing else takes its place unasked.
        UsageError: there is no such engine or mode, the engine lacks the mode, or the backend's
            packages are not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str | None = None,
        engine: str = "native",
        threads: int | None = None,
        chunk: int = DEFAULT_CHUNK,
        experts_mode: ExpertsMode = "storage",
        graph: Graph | None = None,
    ) -> None:
        if chunk < 1:
            raise ContextLengthError(f"chunk is {chunk}", fix="it must be at least 1")
        self.bundle = bundle
        self.model = bundle.manifest.model
        self.context = self.model.max_position_embeddings
        self._engine = engine_named(engine)
        self.tokenizer = self._engine.open_tokenizer(bundle)
        self.backend = backend or default_backend(bundle)
        self.threads = threads or worthwhile_threads(self.model.hidden_size)
        self._graph = graph or open_graph(
            bundle,
            self.backend,
            threads=self.threads,
            operator_library=self._engine.operator_library,
        )
        self.chunk = min(chunk, self.context, self._graph.chunk)
        resident = is_resident(bundle, experts_mode)
        self._experts = self._engine.open_experts(bundle, self.chunk, resident=resident)
        self.experts_mode: ExpertsMode | None = None
        if self._experts is not None:
            self.experts_mode = "resident" if resident else "storage"
        self._stats = SessionStats()
        self._read_before = ReadStats()
        self._position = 0

    @property
    def position(self) -> int:
        """Tokens that the sequence has so far."""
        return self._position

    @property
    def stats(self) -> SessionStats:
        """What was done and how fast, since the session was made or reset."""
        if self._experts is None:
            return self._stats
        read = self._experts.stats
        return replace(
            self._stats,
            rows_read=read.rows - self._read_before.rows,
            bytes_read=read.bytes - self._read_before.bytes,
        )

    @property
    def window_bytes(self) -> int:
        """Bytes of the expert window's planes."""
        return 0 if self._experts is None else self._experts.nbytes

    def reset(self) -> None:
        """Start a new sequence and new statistics."""
        self._start_sequence()
        self._stats = SessionStats()
        self._read_before = ReadStats() if self._experts is None else self._experts.stats

    def close(self) -> None:
        """Close the expert blob; the session cannot be used afterwards."""
        if self._experts is not None:
            self._experts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            TokenizerError: the bundle has no tokenizer, or the text holds a lone surrogate.
        """
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.bundle.path}: has no tokenizer, so it takes ids, not text",
                fix="pass token ids, or export with a tokenizer",
            )
        try:
            return self.tokenizer.encode(text)
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text has a lone surrogate, {text[error.start]!r}, at character {error.start}",
                fix="pass text that UTF-8 can hold",
            ) from None

    def logits(self, token_ids: ArrayLike) -> NDArray[np.float32]:
        """Logits of every position of a new sequence.

        Args:
            token_ids: integers [T].

        Returns:
            float32 [T, V].

        Raises:
            ContextLengthError: no tokens, or more than the context.
            TokenIdError: an id lies outside the vocabulary.
            RowCorruptError: a row's bytes do not match its checksum.
        """
        ids = self._checked_new(token_ids)
        logits = np.empty((len(ids), self.model.vocab_size), np.float32)
        first = 0
        for block in self.logits_blocks(ids):
            logits[first : first + len(block)] = block
            first += len(block)
        return logits

    def logits_blocks(
        self, token_ids: ArrayLike, *, rows: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Logits of every position of a new sequence, a chunk at a time.

        For long texts: the logits of one chunk are in memory, not those of all positions.

        Args:
            token_ids: integers [T].
            rows: positions in a block, if fewer than a chunk's are wanted.

        Yields:
            float32 [C, V], C at most `rows` and `chunk`; overwritten by the next block.

        Raises:
            ContextLengthError: no tokens, or more than the context.
            TokenIdError: an id lies outside the vocabulary.
            RowCorruptError: a row's bytes do not match its checksum.
        """
        ids = self._checked_new(token_ids)
        for part, following in self._chunks(ids, rows):
            yield self._run_chunk(part, following, every=True)

    def prefill(self, token_ids: ArrayLike) -> NDArray[np.float32]:
        """Append tokens to the sequence, in chunks.

        Args:
            token_ids: integers [T].

        Returns:
            float32 [V], the logits after the last token.

        Raises:
            ContextLengthError: no tokens, or more than the context has room for.
            TokenIdError: an id lies outside the vocabulary.
            RowCorruptError: a row's bytes do not match its checksum.
        """
        ids = self._checked(token_ids)
        for part, following in self._chunks(ids):
            logits = self._run_chunk(part, following, every=False)
        last: NDArray[np.float32] = logits[-1].copy()
        return last

    def step(self, token_id: int) -> NDArray[np.float32]:
        """Append one token: one row is read, one position computed.

        Args:
            token_id: the token.

        Returns:
            float32 [V], the logits after it; overwritten by later steps.

        Raises:
            ContextLengthError: the context is full.
            TokenIdError: the id lies outside the vocabulary.
            RowCorruptError: the row's bytes do not match its checksum.
        """
        ids = self._checked([token_id])
        began = time.perf_counter()
        logits: NDArray[np.float32] = self._run(ids, _ONLY_ROW)[0]
        self._stats = replace(
            self._stats,
            decode_tokens=self._stats.decode_tokens + 1,
            decode_seconds=self._stats.decode_seconds + time.perf_counter() - began,
        )
        return logits

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 128,
        sampling: SamplingConfig | None = None,
        stop_ids: Sequence[int] | None = None,
        reset: bool = True,
    ) -> Iterator[Token]:
        """Continue a prompt, token by token.

        Ends after `max_new_tokens`, before a stop id, or when the context is full. The last token
        that it yields is not part of the sequence yet: to go on with `reset=False`, start the next
        prompt with it.

        Args:
            prompt: text, or token ids.
            max_new_tokens: the most tokens to yield.
            sampling: how to choose tokens; None is greedy.
            stop_ids: ids that end the text; None means the tokenizer's end of text, if it has one.
            reset: start a new sequence; False appends the prompt to the one so far.

        Yields:
            tokens. Bytes that complete no character come out as U+FFFD with the last token; before
            a stop id they are dropped.

        Raises:
            ContextLengthError: the prompt is empty or does not fit the context.
            TokenIdError: an id lies outside the vocabulary.
            TokenizerError: the prompt is text and the bundle has no tokenizer.
            RowCorruptError: a row's bytes do not match its checksum.
        """
        began = time.perf_counter()
        if reset:
            self._start_sequence()
        ids = self._checked(self.encode(prompt) if isinstance(prompt, str) else prompt)
        stops = self._stop_ids() if stop_ids is None else set(stop_ids)
        sampler = self._engine.sampler(sampling or SamplingConfig())
        stream = None if self.tokenizer is None else self.tokenizer.stream(ids.tolist())
        logits = self.prefill(ids)
        for count in range(max_new_tokens):
            token_id = sampler.sample(logits)
            if count == 0:
                elapsed = 1e3 * (time.perf_counter() - began)
                self._stats = replace(self._stats, time_to_first_token_ms=elapsed)
            if token_id in stops:
                break
            last = count + 1 == max_new_tokens or self._position == self.context
            text = stream.push(token_id) if stream else ""
            yield Token(token_id, text + stream.finish() if stream and last else text)
            if last:
                break
            logits = self.step(token_id)

    def _start_sequence(self) -> None:
        # The self-attention cache needs no clearing: only positions before the current are read.
        self._position = 0
        if self._experts is not None:
            self._experts.reset()

    def _stop_ids(self) -> set[int]:
        found = None if self.tokenizer is None else self.tokenizer.find(_END_OF_TEXT)
        return set() if found is None else {found}

    def _checked_new(self, token_ids: ArrayLike) -> NDArray[np.int64]:
        self._start_sequence()
        return self._checked(token_ids)

    def _checked(self, token_ids: ArrayLike) -> NDArray[np.int64]:
        try:
            ids = np.asarray(token_ids)
        except ValueError as error:
            raise TokenIdError(
                f"token ids are not a list of integers: {error}", fix="pass a flat list"
            ) from None
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            if ids.size == 0:
                raise _nothing_to_run()
            raise TokenIdError(
                f"token ids are {ids.dtype} {list(ids.shape)}, expected a list of integers",
                fix="pass the tokenizer's ids unchanged",
            )
        if ids.size == 0:
            raise _nothing_to_run()
        room = self.context - self._position
        if len(ids) > room:
            raise ContextLengthError(
                f"{len(ids)} tokens do not fit: {self._position} of the context's {self.context} "
                "are taken",
                fix=f"shorten the prompt to {room} tokens" if room else "reset the session",
            )
        for extreme in (int(ids.min()), int(ids.max())):
            if not 0 <= extreme < self.model.vocab_size:
                raise TokenIdError(
                    f"token id {extreme} is outside the vocabulary, "
                    f"0 to {self.model.vocab_size - 1}",
                    fix="use the tokenizer of this bundle",
                )
        return ids.astype(np.int64, copy=False)

    def _chunks(
        self, ids: NDArray[np.int64], rows: int | None = None
    ) -> Iterator[tuple[NDArray[np.int64], _Ids]]:
        """Chunks, each with the one that follows it, if any."""
        size = min(rows or self.chunk, self.chunk)
        parts = [ids[first : first + size] for first in range(0, len(ids), size)]
        return zip(parts, [*parts[1:], None], strict=True)

    def _run_chunk(
        self, ids: NDArray[np.int64], following: _Ids, *, every: bool
    ) -> NDArray[np.float32]:
        began = time.perf_counter()
        index = np.arange(len(ids)) if every else np.array([len(ids) - 1])
        logits = self._run(ids, index, following)
        self._stats = replace(
            self._stats,
            prefill_tokens=self._stats.prefill_tokens + len(ids),
            prefill_seconds=self._stats.prefill_seconds + time.perf_counter() - began,
        )
        return logits

    def _run(
        self, ids: NDArray[np.int64], logits_index: NDArray[np.int64], following: _Ids = None
    ) -> NDArray[np.float32]:
        if self._experts is not None:
            began = time.perf_counter()
            self._experts.append(ids)
            if following is not None:  # its rows are read while the graph runs
                self._experts.prefetch(following)
            self._stats = replace(
                self._stats,
                lookup_seconds=self._stats.lookup_seconds + time.perf_counter() - began,
            )
        logits = self._graph.run(ids, self._position, self._experts, logits_index)
        self._position += len(ids)
        return logits


_ONLY_ROW = np.zeros(1, np.int64)


def _nothing_to_run() -> ContextLengthError:
    return ContextLengthError("the prompt is empty", fix="give at least one token")
