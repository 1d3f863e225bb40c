"""Quality on a text: perplexity, and the distance to another model, with error bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, Divergence, Estimate, compare_logits, log_softmax
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.manifest import MANIFEST_FILE
from molkv_runtime.session import Session

__all__ = ["Evaluation", "Predictor", "evaluate", "open_predictor"]

Predictor = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""From the token ids of a new sequence, int64 [T], to its logits, float32 [T, V]."""


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
        UsageError: the text is shorter than two tokens.
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
        logits = session.logits(piece)[:-1]
        chosen = log_softmax(logits)[np.arange(len(logits)), piece[1:]]
        losses.append(-chosen)
        if against is not None:
            divergences.append(compare_logits(logits, against(piece)[:-1]))
        if on_tokens is not None:
            on_tokens(len(piece))
    loss = Estimate.of(np.concatenate(losses))
    return Evaluation(loss.count, loss, Comparison.of(divergences) if divergences else None)


def open_predictor(path: Path) -> Predictor:
    """A model to compare with: a bundle, or a checkpoint (which needs the export extra)."""
    if (path / MANIFEST_FILE).is_file():
        return Session(Bundle.open(path)).logits
    import torch

    from molkv_model.checkpoint import load

    model = load(path)

    @torch.no_grad()
    def predict(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = model(torch.from_numpy(ids)[None])[0].numpy()
        return logits

    return predict
