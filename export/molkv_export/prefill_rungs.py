"""Rungs that every graph climbs alike: prefill cut otherwise, and beside golden.json's digests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from molkv_export.golden import golden_logits
from molkv_export.rungs import at_most, difference, distance, listed, nearest_to_limit
from molkv_runtime.golden import GoldenCase
from molkv_runtime.manifest import RungEntry
from molkv_runtime.session import Session

__all__ = ["chunks_rung", "logits_after", "recorded_rung"]


def chunks_rung(
    session: Session,
    cases: Sequence[GoldenCase],
    chunks: Sequence[int],
    *,
    tolerance_factor: float = 1.0,
    suffix: str = "",
) -> RungEntry:
    """Rung 4: prefill of the longest prompt, and of beginnings of it, at once and in chunks.

    Args:
        session: of the graph; it is reset.
        cases: of golden.json.
        chunks: their lengths in tokens.
        tolerance_factor: of the golden case's tolerance.
        suffix: how the rung's name ends.
    """
    case = max(cases, key=lambda case: len(case.prompt_ids))
    ids, worst = case.prompt_ids, 0.0
    lengths = _lengths(len(ids), session.model.expert_window)
    for length in lengths:
        whole = logits_after(session, ids[:length], length)
        for chunk in chunks:
            worst = max(worst, distance(logits_after(session, ids[:length], chunk), whole))
    limit = tolerance_factor * case.logits_tolerance
    detail = f"{listed(lengths)} tokens in chunks of {listed(chunks)}"
    return at_most(f"4 prefill in chunks{suffix}", worst, limit, detail)


def recorded_rung(
    session: Session,
    cases: Sequence[GoldenCase],
    *,
    tolerance_factor: float = 1.0,
    suffix: str = "",
) -> RungEntry:
    """Rung 5: logits after every prompt, beside the recorded digests; arguments as above."""
    pairs = [
        (_recorded_difference(session, case), tolerance_factor * case.logits_tolerance)
        for case in cases
    ]
    name = f"5 logits: recorded{suffix}"
    return at_most(name, *nearest_to_limit(pairs), f"{len(cases)} prompts")


def logits_after(session: Session, ids: Sequence[int], chunk: int) -> NDArray[np.float32]:
    """Logits [V] of the last token of a new sequence that is filled chunk by chunk."""
    # Other ids come first: what an earlier run of these left in the cache would stand in for a
    # write that is missing.
    session.reset()
    session.prefill([(token_id + 1) % session.model.vocab_size for token_id in ids])
    session.reset()
    for first in range(0, len(ids), chunk):
        logits = session.prefill(ids[first : first + chunk])
    return logits


def _lengths(longest: int, window: int) -> list[int]:
    """Where prefills end: the window just full, just slid, in the middle and at the end."""
    lengths = {window, window + 1, longest // 2, longest}
    return sorted(length for length in lengths if 0 < length <= longest)


def _recorded_difference(session: Session, case: GoldenCase) -> float:
    recorded = case.logits
    logits = logits_after(session, case.prompt_ids, len(case.prompt_ids))
    ours = golden_logits(logits)
    pairs = [
        *zip(logits[recorded.token_ids].tolist(), recorded.values, strict=True),
        (ours.mean, recorded.mean),
        (ours.root_mean_square, recorded.root_mean_square),
    ]
    return max(difference(first, second) for first, second in pairs)
