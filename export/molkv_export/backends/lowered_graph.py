"""What every backend gives back, and what every graph says about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from molkv_model.config import ModelConfig
from molkv_runtime.manifest import (
    BackendEntry,
    CachePrecision,
    DensePrecision,
    EmbeddingPrecision,
    LimitsEntry,
)
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["LoweredGraph", "graph_properties"]


@dataclass(frozen=True)
class LoweredGraph:
    """A dense graph on disk.

    Attributes:
        files: what was written.
        entry: the backend's part of the manifest.
    """

    files: list[Path]
    entry: BackendEntry


def graph_properties(
    config: ModelConfig,
    *,
    identity: str,
    experts: ExpertPrecision,
    dense: DensePrecision,
    cache: CachePrecision,
    limits: LimitsEntry | None = None,
    embedding: EmbeddingPrecision | None = None,
) -> dict[str, str]:
    """The ``molkv.*`` properties that a graph carries (docs/graph.md, "The bundle").

    Args:
        config: the model's.
        identity: the checkpoint's, in hexadecimal.
        experts: how the window's rows are stored, if there are any.
        dense: precision of the dense weights.
        cache: precision of the self-attention cache.
        limits: what the graph is compiled for; None where it takes any size.
        embedding: precision of the input embedding in the rows; None where the graph has it.
    """
    properties = {
        "molkv.identity": identity,
        "molkv.experts": experts if config.has_experts else "none",
        "molkv.dense": dense,
        "molkv.cache": cache,
        "molkv.config": json.dumps(config.to_bundle()),
    }
    if embedding is not None:
        properties["molkv.embedding"] = "storage"
    if limits is not None:
        properties["molkv.limits"] = json.dumps(msgspec.to_builtins(limits))
    return properties
