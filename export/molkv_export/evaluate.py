"""Quality on a text: perplexity, and the distance to another model, with error bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import (
    Comparison,
    Divergence,
    Estimate,
    block_rows,
    compare_logits,
    log_softmax,
)
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.manifest import MANIFEST_FILE
from molkv_runtime.session import Session

__all__ = ["Evaluation", "Predictor", "evaluate", "open_predictor"]

Predictor = Callable[[NDArray[np.int64], int], Iterator[NDArray[np.float32]]]
"""From the token ids of a new sequence, int64 [T], and a number of rows to blocks of its logits,
float32 [rows, V], the last perhaps shorter; a block may be overwritten by the next."""


@dataclass(frozen=True)
class Evaluation:
    """Quality of a bundle on a text.

    Attributes:
        tokens: predictions scored.
        loss: nats a token.
        comparison: with another model over the same positions; None without one.
    """

    tokens: int
    loss: Estimate
    comparison: Comparison | None

    @property
    def perplexity(self) -> float:
        """Exp of the loss."""
        return float(np.exp(self.loss.mean))

    @property
    def perplexity_error(self) -> float:
        """Standard error, to first order."""
        return self.perplexity * self.loss.error


def evaluate(
    session: Session,
    token_ids: Sequence[int],
    *,
    against: Predictor | None = None,
    on_tokens: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a text, cut into sequences of the context's length.

    Args:
        session: of the bundle to judge.
        token_ids: the text.
        against: the model to compare with.
        on_tokens: called with the number of tokens done since the last call.

    Raises:
        UsageError: the text is shorter than two tokens, or the models' vocabularies differ.
    """
    ids = np.asarray(token_ids, np.int64)
    length = session.context
    pieces = [ids[first : first + length] for first in range(0, len(ids), length)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise UsageError(f"the text has {len(ids)} tokens", fix="give at least two")
    losses: list[NDArray[np.float64]] = []
    divergences: list[Divergence] = []
    for piece in pieces:
        for loss, divergence in _scores(session, piece, against):
            losses.append(loss)
            if divergence is not None:
                divergences.append(divergence)
        if on_tokens is not None:
            on_tokens(len(piece))
    mean = Estimate.of(np.concatenate(losses))
    return Evaluation(mean.count, mean, Comparison.of(divergences) if divergences else None)


def _scores(
    session: Session, ids: NDArray[np.int64], against: Predictor | None
) -> Iterator[tuple[NDArray[np.float64], Divergence | None]]:
    """Losses and divergences of the positions that have a next token, in blocks."""
    rows = min(block_rows(session.model.vocab_size), session.chunk)
    others = None if against is None else against(ids, rows)
    for number, logits in enumerate(session.logits_blocks(ids, rows=rows)):
        other = None if others is None else next(others)
        if other is not None and other.shape != logits.shape:
            raise UsageError(
                f"the models have vocabularies of {logits.shape[1]} and {other.shape[1]} token ids",
                fix="compare models that share a tokenizer",
            )
        following = ids[number * rows + 1 :][: len(logits)]
        count = len(following)
        if count:
            loss = -log_softmax(logits[:count])[np.arange(count), following]
            yield loss, None if other is None else compare_logits(logits[:count], other[:count])


def open_predictor(path: Path) -> Predictor:
    """A model to compare with: a bundle, or a checkpoint (which needs the export extra)."""
    if (path / MANIFEST_FILE).is_file():
        session = Session(Bundle.open(path))
        return lambda ids, rows: session.logits_blocks(ids, rows=rows)
    import torch
    from torch.nn import functional

    from molkv_model.checkpoint import load

    model = load(path)

    def predict(ids: NDArray[np.int64], rows: int) -> Iterator[NDArray[np.float32]]:
        # Of a batch of one: all but the head at once, the head in blocks.
        with torch.no_grad():
            hidden = model.hidden_states(torch.from_numpy(ids)[None])[0]
        for first in range(0, len(ids), rows):
            with torch.no_grad():
                block = functional.linear(hidden[first : first + rows], model.head_weight)
            yield block.numpy()

    return predict
