"""Where a model's input embedding goes: into the dense graphs, or into the expert rows."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, get_args

from molkv_export.errors import ExportError

if TYPE_CHECKING:
    from molkv_model.config import ModelConfig
    from molkv_runtime.manifest import EmbeddingPrecision

__all__ = [
    "EMBEDDING_PLACES",
    "EmbeddingPlace",
    "require_place",
    "stored_embedding",
    "warn_of_tied_embedding",
]

logger = logging.getLogger(__name__)

EmbeddingPlace = Literal["graph", "storage"]
"""``graph``: a table in every dense graph. ``storage``: a part of every token's row."""

# Its programs have a tied table twice: once to look up, once to multiply by.
_TWO_TABLES = ("executorch",)

EMBEDDING_PLACES: tuple[EmbeddingPlace, ...] = get_args(EmbeddingPlace)


def require_place(place: str) -> None:
    """Check that a place is known.

    Raises:
        ExportError: it is none of `EMBEDDING_PLACES`.
    """
    if place not in EMBEDDING_PLACES:
        raise ExportError(f"embedding is {place!r}", fix=f"one of {', '.join(EMBEDDING_PLACES)}")


def stored_embedding(config: ModelConfig, place: EmbeddingPlace) -> EmbeddingPrecision | None:
    """How rows store a model's input embedding; None where the dense graphs have it.

    Raises:
        ExportError: there is no such place, or the model has no rows.
    """
    require_place(place)
    if place == "graph":
        return None
    if not config.has_experts:
        raise ExportError(
            "embedding is storage, but the model has no experts, and so no rows on storage that "
            "its embedding could be a part of",
            fix="leave --embedding out",
        )
    return "f16"


def warn_of_tied_embedding(config: ModelConfig, backends: Iterable[str]) -> None:
    """Log a warning where graphs keep the table, as their head, all the same.

    It is no error: an engine may hold such a table twice, as it is stored to look up and packed to
    multiply by, and then once (docs/graph.md, "The input embedding").
    """
    if not config.tie_word_embeddings:
        return
    kept = [name for name in backends if name not in _TWO_TABLES]
    if kept:
        logger.warning(
            "embedding is storage, but the head is the embedding: its table stays in the dense "
            "graph (%s), which becomes no smaller",
            ", ".join(kept),
        )
