"""The ladder of graphs that round activations to int8: ONNX's and ExecuTorch's quantized ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from molkv_export.backends.catalogue import stored_tensors
from molkv_export.backends.onnx.stored_weights import cache_scales
from molkv_export.errors import ExportError
from molkv_export.inexact_ladder import InexactLadder, StoredWeights
from molkv_export.reference import ReferenceSession
from molkv_export.rungs import PrecisionLimits
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import DensePrecision, RungEntry
from molkv_runtime.session import Session

__all__ = ["LIMITS", "ROUNDED_ACTIVATIONS_FACTOR", "climb_rounded"]

ROUNDED_ACTIVATIONS_FACTOR = 2500.0
"""Tolerance where activations are rounded to int8, as a multiple of the golden one, which is
float32's: 7.5 % of the largest logit. Measured: docs/graph.md."""

_INT8 = PrecisionLimits(ROUNDED_ACTIVATIONS_FACTOR, nats=0.005, same_top1=0.9)
LIMITS: dict[str, dict[DensePrecision, PrecisionLimits]] = {
    "onnx": {
        "fp32": _INT8,  # exact weights, and a self-attention cache in int8
        "int8": _INT8,
        "int4": PrecisionLimits(ROUNDED_ACTIVATIONS_FACTOR, nats=0.15, same_top1=0.5),
    },
    "executorch": {
        "int8": _INT8,
        "int4": PrecisionLimits(ROUNDED_ACTIVATIONS_FACTOR, nats=0.1, same_top1=0.7),
    },
}
"""By backend: ONNX's int4 has blocks of 64, ExecuTorch's of 32."""


def climb_rounded(
    bundle: Bundle,
    backend: str,
    open_session: Callable[[], Session],
    checkpoint: Checkpoint | None,
) -> Iterator[RungEntry]:
    """Climb the rungs that apply.

    Args:
        bundle: with a graph of that backend whose dense weights or cache are quantized.
        backend: its name.
        open_session: makes a session of that graph.
        checkpoint: where the bundle came from; without it the rungs that need torch are left out.

    Raises:
        BundleError: the package that quantizes as the graph was quantized is not installed.
    """
    entry = bundle.manifest.backends[backend]

    def stored(checkpoint: Checkpoint, blob: Blob | None) -> ReferenceSession:
        try:
            tensors = stored_tensors(backend, checkpoint, entry.dense)
        except ExportError as error:
            raise BundleError(
                f"{bundle.path}: its graph cannot be compared with torch: {error.problem}",
                fix=f"{error.fix}, or verify without --checkpoint",
            ) from None
        scales = cache_scales(bundle.graph_file(backend)) if entry.cache == "int8" else None
        return ReferenceSession(checkpoint, blob, replaced=tensors, cache_scales=scales)

    yield from InexactLadder(
        bundle,
        open_session,
        LIMITS[backend][entry.dense],
        StoredWeights(exact=False, reference=stored),
        checkpoint=checkpoint,
    ).climb()
