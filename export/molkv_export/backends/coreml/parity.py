"""The parity ladder for a Core ML graph: rungs 3 to 6, at float16's tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from molkv_export.backends.coreml.graph import CoreMLGraph
from molkv_export.backends.coreml.op_parity import compare_composite
from molkv_export.backends.coreml.package import DECODE
from molkv_export.backends.coreml.stored_weights import stored_tensors
from molkv_export.inexact_ladder import InexactLadder, StoredWeights
from molkv_export.op_parity import WRONG_FORMULA_DIFFERENCE
from molkv_export.reference import ReferenceSession
from molkv_export.rungs import PrecisionLimits, at_least, at_most
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.manifest import EVALUATED, DensePrecision, RungEntry
from molkv_runtime.session import Session

__all__ = ["FLOAT16_FACTOR", "LIMITS", "OP_TOLERANCE", "climb"]

FLOAT16_FACTOR = 300.0
"""float16's tolerance as a multiple of the golden one, which is float32's: 0.9 % of the largest
logit. Measured: docs/ios.md."""

OP_TOLERANCE = 4e-3
"""Of the composite, relative to the largest output: eight roundings of float16. Measured: 1e-3."""

LIMITS: dict[DensePrecision, PrecisionLimits] = {
    "fp16": PrecisionLimits(FLOAT16_FACTOR, nats=1e-4, same_top1=0.99),
    "int8": PrecisionLimits(FLOAT16_FACTOR, nats=5e-3, same_top1=0.9),
    "int4": PrecisionLimits(FLOAT16_FACTOR, nats=0.15, same_top1=0.5),
    "palettized4": PrecisionLimits(FLOAT16_FACTOR, nats=0.15, same_top1=0.5),
}


def climb(bundle: Bundle, checkpoint: Checkpoint | None) -> Iterator[RungEntry]:
    """Climb the rungs that apply.

    Every rung's name says whether Core ML ran the graph or its program was evaluated.

    Args:
        bundle: with a Core ML graph.
        checkpoint: where the bundle came from; without it the rungs that need torch are left out.

    Raises:
        BundleError: the graph cannot be loaded, or is another checkpoint's.
    """
    graph = CoreMLGraph(bundle.graph_file("coreml"), bundle.manifest)
    if bundle.expert_files:
        yield from _op(bundle)
    yield from InexactLadder(
        bundle,
        partial(Session, bundle, graph=graph, chunk=graph.context),
        LIMITS[graph.dense],
        _stored_weights(graph),
        checkpoint=checkpoint,
        suffix=f", {EVALUATED if graph.evaluated else 'Core ML'}",
    ).climb()


def _op(bundle: Bundle) -> Iterator[RungEntry]:
    """The composite is evaluated in every case: Core ML runs packages, not single ops."""
    for result in compare_composite(bundle.row_geometry(), bundle.manifest.model.expert_window):
        make = at_least if result.must_differ else at_most
        limit = WRONG_FORMULA_DIFFERENCE if result.must_differ else OP_TOLERANCE
        yield make(f"3 op: {result.name}", result.difference, limit, result.detail)


def _stored_weights(graph: CoreMLGraph) -> StoredWeights:
    """Compressed ones are read from the program; Core ML itself does not tell them."""
    if graph.dense == "fp16":
        return StoredWeights(exact=True)
    program = graph.evaluated
    if program is None:
        return StoredWeights(exact=False)

    def reference(checkpoint: Checkpoint, blob: Blob | None) -> ReferenceSession:
        tensors = stored_tensors(checkpoint.config, program.function(DECODE))
        return ReferenceSession(checkpoint, blob, replaced=tensors)

    return StoredWeights(exact=False, reference=reference)
