"""Rungs 4 to 6 for graphs that do not compute in float32, or not with the trained weights.

Two questions are kept apart. Does the graph compute what torch computes **with the weights that it
stores**? That is asked at the tolerance of its arithmetic, whatever the compression. And how far is
it from the trained weights? That is compression's cost, and its limits only catch what is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, Divergence, block_rows, compare_logits
from molkv_export.golden_states import golden_states
from molkv_export.prefill_rungs import chunks_rung, logits_after, recorded_rung
from molkv_export.reference import FinalStates, ReferenceSession
from molkv_export.rungs import (
    PrecisionLimits,
    at_least,
    at_most,
    distance,
    nearest_to_limit,
)
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.golden import GoldenCase
from molkv_runtime.manifest import RungEntry
from molkv_runtime.session import Session

__all__ = ["STORED_NATS", "InexactLadder", "StoredWeights"]

_CHUNKS = (1, 7)

STORED_NATS = 0.001
"""Most KL divergence from torch on the weights as they are stored, mean over positions. It varies
less from model to model than the largest difference does: docs/graph.md."""


@dataclass(frozen=True)
class StoredWeights:
    """What the reference is to compute with.

    Attributes:
        exact: whether they are the trained weights, as close as the graph's arithmetic is.
        reference: makes a session on them and the bundle's rows; None where nobody can tell what
            they are.
    """

    exact: bool
    reference: Callable[[Checkpoint, Blob | None], ReferenceSession] | None = None


@dataclass(frozen=True)
class _Answer:
    """What the graph says to a golden case.

    Attributes:
        logits: float32 [C, V], after the prompt and after every token of its continuation.
        greedy: its own continuation.
    """

    logits: NDArray[np.float32]
    greedy: list[int]


class InexactLadder:
    """The rungs of one graph.

    What `open_session` loads is in memory between torch's trained weights and the stored ones.

    Args:
        bundle: an open bundle.
        open_session: makes a session of the graph.
        limits: of its precision.
        stored: the weights that it computes with.
        checkpoint: where the bundle came from; without it the rungs that need torch are left out.
        suffix: how the names of the rungs end.
    """

    def __init__(
        self,
        bundle: Bundle,
        open_session: Callable[[], Session],
        limits: PrecisionLimits,
        stored: StoredWeights,
        *,
        checkpoint: Checkpoint | None,
        suffix: str = "",
    ) -> None:
        self.bundle = bundle
        self.open_session = open_session
        self.limits = limits
        self.stored = stored
        self.checkpoint = checkpoint
        self.suffix = suffix
        self.cases = bundle.load_golden().cases

    def climb(self) -> Iterator[RungEntry]:
        """Climb the rungs that apply."""
        checkpoint, trained = self.checkpoint, list[FinalStates]()
        if checkpoint is not None:  # of the trained weights only the head stays
            trained = golden_states(self.bundle, checkpoint)
        answers = yield from self._alone()
        if checkpoint is not None:
            yield from self._beside_torch(checkpoint, trained, answers)

    def _alone(self) -> Generator[RungEntry, None, list[_Answer]]:
        """The rungs that need no torch; returns what torch will be asked, if it will be."""
        factor = self.limits.tolerance_factor
        with self.open_session() as session:
            yield chunks_rung(
                session, self.cases, _CHUNKS, tolerance_factor=factor, suffix=self.suffix
            )
            if self.stored.exact:
                yield recorded_rung(
                    session, self.cases, tolerance_factor=factor, suffix=self.suffix
                )
            if self.checkpoint is not None:
                return [_answer(session, case) for case in self.cases]
            if self.stored.exact:
                yield self._golden_tokens(session)
        return []

    def _beside_torch(
        self, checkpoint: Checkpoint, trained: list[FinalStates], answers: list[_Answer]
    ) -> Iterator[RungEntry]:
        blob = self.bundle.open_experts()
        try:
            make_stored = ReferenceSession if self.stored.exact else self.stored.reference
            stored = None if make_stored is None else make_stored(checkpoint, blob)
            yield from self._logits(answers, trained, stored)
            if stored is not None:
                yield self._greedy_tokens(answers, stored)
        finally:
            if blob is not None:
                blob.close()

    def _logits(
        self,
        answers: list[_Answer],
        trained: list[FinalStates],
        stored: ReferenceSession | None,
    ) -> Iterator[RungEntry]:
        """After each prompt and each token of its continuation, beside one torch or two."""
        pairs, parts = list[tuple[float, float]](), list[Divergence]()
        from_stored = list[Divergence]()
        for case, answer, states in zip(self.cases, answers, trained, strict=True):
            tolerance = self._tolerance(case)
            near_tie = tolerance if self.stored.exact else 0.0
            for ours, theirs in _beside(answer.logits, states):
                parts.append(compare_logits(ours, theirs, near_tie=near_tie))
            if stored is not None:
                if not self.stored.exact:
                    ids = case.sequence(self.bundle.manifest.model.max_position_embeddings)
                    stored.reset()
                    states = stored.final_states(ids)
                for ours, theirs in _beside(answer.logits, states):
                    pairs.append((distance(ours, theirs), tolerance))
                    from_stored.append(compare_logits(ours, theirs))
        comparison, limits = Comparison.of(parts), self.limits
        positions = f"{comparison.same_top1.count} positions"
        if stored is not None:
            name = "5 logits: max-abs to torch on the stored weights"
            yield self._at_most(name, *nearest_to_limit(pairs), positions)
        if stored is not None and not self.stored.exact:
            name = "5 logits: KL divergence to torch on the stored weights"
            nats = Comparison.of(from_stored).kl_divergence.mean
            yield self._at_most(name, nats, STORED_NATS, "nats")
        nats, same = comparison.kl_divergence.mean, comparison.same_top1.mean
        yield self._at_most("5 logits: KL divergence", nats, limits.nats, "nats")
        name = f"5 logits: same top-1{self.suffix}"
        yield at_least(name, same, limits.same_top1, positions)

    def _greedy_tokens(self, answers: list[_Answer], stored: ReferenceSession) -> RungEntry:
        """Our greedy tokens; each may only be as far below torch's best as two errors allow."""
        pairs, same, count = list[tuple[float, float]](), 0, 0
        for case, answer in zip(self.cases, answers, strict=True):
            ours = answer.greedy
            stored.reset()
            states = stored.final_states(case.prompt_ids + ours[:-1])
            worst = 0.0
            for chosen, logits in _beside(np.array(ours), states):
                lead = logits.max(axis=-1) - logits[np.arange(len(chosen)), chosen]
                worst = max(worst, float(lead.max()))
            pairs.append((worst, 2 * self._tolerance(case)))
            same += sum(a == b for a, b in zip(ours, case.greedy, strict=False))
            count += len(ours)
        return self._tokens_rung(pairs, f"{same} of {count} as recorded")

    def _golden_tokens(self, session: Session) -> RungEntry:
        """The recorded tokens; each may only be as far below our best as two errors allow."""
        pairs = []
        for case in self.cases:
            logits = logits_after(session, case.prompt_ids, len(case.prompt_ids))
            worst = 0.0
            for place, token in enumerate(case.greedy):
                worst = max(worst, float(logits.max() - logits[token]))
                if place + 1 < len(case.greedy):
                    logits = session.step(token)
            pairs.append((worst, 2 * self._tolerance(case)))
        return self._tokens_rung(pairs, f"{sum(len(case.greedy) for case in self.cases)} tokens")

    def _tokens_rung(self, pairs: list[tuple[float, float]], detail: str) -> RungEntry:
        name = "6 greedy tokens: below the best logit"
        return self._at_most(name, *nearest_to_limit(pairs), detail)

    def _tolerance(self, case: GoldenCase) -> float:
        return self.limits.tolerance_factor * case.logits_tolerance

    def _at_most(self, name: str, figure: float, limit: float, detail: str) -> RungEntry:
        return at_most(f"{name}{self.suffix}", figure, limit, detail)


def _answer(session: Session, case: GoldenCase) -> _Answer:
    ids, prompt = case.sequence(session.context), len(case.prompt_ids)
    logits = [logits_after(session, ids[:prompt], prompt)]
    logits += [session.step(token).copy() for token in ids[prompt:]]
    length = max(1, len(case.greedy))
    tokens = session.generate(case.prompt_ids, max_new_tokens=length, stop_ids=())
    return _Answer(np.stack(logits), [token.id for token in tokens])


def _beside(
    ours: NDArray[Any], states: FinalStates
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32]]]:
    """Rows of ours and torch's logits of the same last positions, in blocks of positions."""
    rows = block_rows(len(states.head))
    blocks = (ours[first : first + rows] for first in range(0, len(ours), rows))
    return zip(
        blocks, states.logits_blocks(rows, first=len(states.states) - len(ours)), strict=True
    )
