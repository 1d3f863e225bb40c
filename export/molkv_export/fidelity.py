"""What a bundle takes and what it loses: its sizes beside its evaluation, and the best trades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from molkv_export.divergence import Estimate
from molkv_export.evaluate import Evaluation
from molkv_runtime.bundle import Bundle
from molkv_runtime.manifest import CachePrecision, DensePrecision
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import RowLayout

__all__ = [
    "Combination",
    "Fidelity",
    "Footprint",
    "as_json",
    "estimate_json",
    "evaluation_json",
    "pareto_front",
]


@dataclass(frozen=True)
class Combination:
    """The precisions of a bundle and one of its graphs.

    Attributes:
        experts: of the expert rows; None without experts.
        dense: of the dense weights.
        cache: of the self-attention cache.
    """

    experts: ExpertPrecision | None
    dense: DensePrecision
    cache: CachePrecision

    @classmethod
    def of(cls, bundle: Bundle, backend: str) -> Combination:
        """That of a bundle's graph."""
        entry = bundle.manifest.backends[backend]
        return cls(bundle.manifest.quantization.experts, entry.dense, entry.cache)

    def __str__(self) -> str:
        return f"{self.experts or 'none'}/{self.dense}/{self.cache}"


@dataclass(frozen=True)
class Footprint:
    """What a bundle and one of its graphs take.

    Attributes:
        dense_bytes: of the graph's files.
        blob_bytes: of the expert blob.
        bytes_per_token: read from the blob for each new token.
    """

    dense_bytes: int
    blob_bytes: int
    bytes_per_token: int

    @classmethod
    def of(cls, bundle: Bundle, backend: str) -> Footprint:
        """That of a bundle's graph, from the manifest."""
        manifest = bundle.manifest
        graph = manifest.backends[backend].graph
        sizes = {entry.name: entry.bytes for entry in manifest.files}
        # The graph's own file, the data beside it, or what lies in its folder.
        dense = [
            size
            for name, size in sizes.items()
            if name == graph or name.startswith((f"{graph}.", f"{graph}/"))
        ]
        row = RowLayout.of(bundle.row_geometry()).row_stride if manifest.experts else 0
        return cls(sum(dense), sum(sizes[name] for name in manifest.experts), row)

    @property
    def total_bytes(self) -> int:
        """Graph and blob together."""
        return self.dense_bytes + self.blob_bytes


@dataclass(frozen=True)
class Fidelity:
    """One line of the table.

    Attributes:
        name: of the bundle.
        combination: its precisions.
        footprint: its sizes.
        evaluation: on the text.
    """

    name: str
    combination: Combination
    footprint: Footprint
    evaluation: Evaluation

    @property
    def nats(self) -> Estimate | None:
        """The KL divergence; None where nothing was compared."""
        comparison = self.evaluation.comparison
        return None if comparison is None else comparison.kl_divergence


def pareto_front(results: Sequence[Fidelity]) -> list[Fidelity]:
    """Those that no other beats in size and KL divergence both, smallest first.

    Of several that are equal in both, the first is taken.
    """
    compared = [
        (result.footprint.total_bytes, result.nats.mean, result)
        for result in results
        if result.nats is not None
    ]
    front: list[Fidelity] = []
    least = float("inf")
    for _, nats, result in sorted(compared, key=lambda entry: entry[:2]):
        if nats < least:
            least = nats
            front.append(result)
    return front


def as_json(result: Fidelity) -> dict[str, Any]:
    """The same facts for machines; an error that is not known is null."""
    combination, footprint, evaluation = result.combination, result.footprint, result.evaluation
    return {
        "name": result.name,
        "experts": combination.experts,
        "dense": combination.dense,
        "cache": combination.cache,
        "dense_bytes": footprint.dense_bytes,
        "blob_bytes": footprint.blob_bytes,
        "bytes_per_token": footprint.bytes_per_token,
        **evaluation_json(evaluation),
    }


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Means with their standard errors."""
    comparison = evaluation.comparison
    facts: dict[str, Any] = {
        "tokens": evaluation.tokens,
        **estimate_json("loss", evaluation.loss),
        "perplexity": evaluation.perplexity,
        "perplexity_error": _known(evaluation.perplexity_error),
    }
    for name in ("kl_divergence", "same_top1"):
        facts |= estimate_json(name, None if comparison is None else getattr(comparison, name))
    return facts


def estimate_json(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """A mean and, under the name with ``_error`` added, its standard error; null if unknown."""
    if estimate is None:
        return {name: None, f"{name}_error": None}
    return {name: estimate.mean, f"{name}_error": _known(estimate.error)}


def _known(error: float) -> float | None:
    return None if error == float("inf") else error
