"""Torch on the golden prompts and their continuations, once, before any engine is loaded."""

from __future__ import annotations

from molkv_export.reference import FinalStates, ReferenceSession
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle

__all__ = ["golden_states"]


def golden_states(bundle: Bundle, checkpoint: Checkpoint) -> list[FinalStates]:
    """The final states of every golden case; of the weights, only the head stays in memory.

    Args:
        bundle: an open bundle.
        checkpoint: where it came from.
    """
    context = bundle.manifest.model.max_position_embeddings
    blob = bundle.open_experts()
    try:
        reference = ReferenceSession(checkpoint, blob)
        states = []
        for case in bundle.load_golden().cases:
            reference.reset()
            states.append(reference.final_states(case.sequence(context)))
        return states
    finally:
        if blob is not None:
            blob.close()
