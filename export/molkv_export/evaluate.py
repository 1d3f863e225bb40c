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

__all__ = ["Evaluation", "Predictor", "cut", "evaluate", "open_predictor", "score"]

Predictor = Callable[[NDArray[np.int64], int], Iterator[NDArray[np.float32]]]
"""From the token ids of a new sequence, int64 [T], and a number of rows to blocks of its logits,
float32 [rows, V], the last perhaps shorter; a block may be overwritten by the next."""


@dataclass(frozen=True)
class Evaluation:
    """Quality of a model on a text.

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


def cut(token_ids: Sequence[int], context: int) -> list[NDArray[np.int64]]:
    """A text as sequences of the context's length, the last perhaps shorter: int64 [T] each.

    Raises:
        UsageError: the text is shorter than two tokens.
    """
    ids = np.asarray(token_ids, np.int64)
    pieces = [ids[first : first + context] for first in range(0, len(ids), context)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise UsageError(f"the text has {len(ids)} tokens", fix="give at least two")
    return pieces


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
    rows = min(block_rows(session.model.vocab_size), session.chunk)
    pieces = cut(token_ids, session.context)
    return score(_of_session(session), pieces, rows, against=against, on_tokens=on_tokens)


def score(
    predict: Predictor,
    pieces: Sequence[NDArray[np.int64]],
    rows: int,
    *,
    against: Predictor | None = None,
    on_tokens: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score sequences.

    Args:
        predict: the model to judge.
        pieces: token ids of each sequence, int64 [T], T at least 2.
        rows: positions whose logits are in memory at a time.
        against: the model to compare with.
        on_tokens: called with the number of tokens done since the last call.

    Raises:
        UsageError: the models' vocabularies differ.
    """
    losses: list[NDArray[np.float64]] = []
    divergences: list[Divergence] = []
    for piece in pieces:
        blocks = list(_scores(predict, piece, rows, against))
        losses.append(np.concatenate([loss for loss, _ in blocks]))
        compared = [divergence for _, divergence in blocks if divergence is not None]
        if compared:
            divergences.append(Divergence.joined(compared))
        if on_tokens is not None:
            on_tokens(len(piece))
    loss = Estimate.of(losses)
    return Evaluation(loss.count, loss, Comparison.of(divergences) if divergences else None)


def _scores(
    predict: Predictor, ids: NDArray[np.int64], rows: int, against: Predictor | None
) -> Iterator[tuple[NDArray[np.float64], Divergence | None]]:
    """Losses and divergences of the positions that have a next token, in blocks."""
    others = None if against is None else against(ids, rows)
    for number, logits in enumerate(predict(ids, rows)):
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


def open_predictor(path: Path, *, remember: bool = False) -> Predictor:
    """A model to compare with: a bundle, or a checkpoint (which needs the export extra).

    Args:
        path: its folder.
        remember: whether a checkpoint's model computes each sequence once only, at d floats of
            memory for each position.
    """
    if (path / MANIFEST_FILE).is_file():
        return _of_session(Session(Bundle.open(path)))
    from molkv_export.trained_model import TrainedModel
    from molkv_model.checkpoint import load

    return TrainedModel(load(path), remember=remember)


def _of_session(session: Session) -> Predictor:
    return lambda ids, rows: session.logits_blocks(ids, rows=rows)
