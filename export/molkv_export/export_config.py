"""What to export, and how: every option, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from molkv_export.backends.catalogue import choose_caches, choose_precisions
from molkv_export.embedding_place import EmbeddingPlace, require_place
from molkv_export.errors import ExportError
from molkv_runtime.manifest import CachePrecision, DensePrecision
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["EXPERT_PRECISIONS", "ExportConfig"]

EXPERT_PRECISIONS: tuple[ExpertPrecision, ...] = get_args(ExpertPrecision)


@dataclass(frozen=True)
class ExportConfig:
    """What to export and where to.

    Attributes:
        checkpoint: a folder in Hugging Face layout.
        out: the bundle folder to make.
        backends: whose dense graphs to write.
        experts: precision of the expert rows.
        tokenizer: a ``tokenizer.json`` to use instead of the checkpoint's.
        force: replace an existing folder.
        dense: precision of the dense weights: one for all backends, one for each that is named,
            or None; a backend that gets none has its default.
        cache: precision of the self-attention cache, for the backends that have it; None is every
            backend's default.
        shard_size: the most bytes of a file of the expert blob; None makes a single file.
        embedding: whether the input embedding goes into the dense graphs or into the rows.
        precisions: what `dense` comes to, for each backend.
        caches: what `cache` comes to, for each backend.

    Raises:
        ExportError: an option is unknown, a backend lacks the precision or is not installed; before
            any work.
    """

    checkpoint: Path
    out: Path
    backends: tuple[str, ...] = ("onnx",)
    experts: ExpertPrecision = "int8"
    tokenizer: Path | None = None
    force: bool = False
    dense: str | Mapping[str, str] | None = None
    cache: str | None = None
    shard_size: int | None = None
    embedding: EmbeddingPlace = "graph"
    precisions: dict[str, DensePrecision] = field(init=False)
    caches: dict[str, CachePrecision] = field(init=False)

    def __post_init__(self) -> None:
        if self.experts not in EXPERT_PRECISIONS:
            raise ExportError(
                f"experts is {self.experts!r}", fix=f"one of {', '.join(EXPERT_PRECISIONS)}"
            )
        require_place(self.embedding)
        object.__setattr__(self, "precisions", choose_precisions(self.backends, self.dense))
        object.__setattr__(self, "caches", choose_caches(self.backends, self.cache))
