"""The parity ladder for quantized ExecuTorch programs: rungs 4 to 6 (docs/executorch.md)."""

from __future__ import annotations

from collections.abc import Iterator

from molkv_export.backends.quiet import quiet_libraries
from molkv_export.inexact_ladder import InexactLadder, StoredWeights
from molkv_export.reference import ReferenceSession
from molkv_export.rungs import PrecisionLimits
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.manifest import DensePrecision, RungEntry
from molkv_runtime.session import Session

__all__ = ["LIMITS", "ROUNDED_ACTIVATIONS_FACTOR", "climb_quantized"]

ROUNDED_ACTIVATIONS_FACTOR = 1500.0
"""Tolerance where activations are rounded to int8, as a multiple of the golden one, which is
float32's: 4.5 % of the largest logit. Measured: docs/executorch.md."""

LIMITS: dict[DensePrecision, PrecisionLimits] = {
    "int8": PrecisionLimits(ROUNDED_ACTIVATIONS_FACTOR, nats=0.005, same_top1=0.9),
    "int4": PrecisionLimits(ROUNDED_ACTIVATIONS_FACTOR, nats=0.1, same_top1=0.7),
}


def climb_quantized(
    bundle: Bundle,
    session: Session,
    checkpoint: Checkpoint | None,
    reference: ReferenceSession | None,
) -> Iterator[RungEntry]:
    """Climb the rungs that apply.

    Args:
        bundle: with an ExecuTorch program whose dense weights are quantized.
        session: of that program.
        checkpoint: where the bundle came from; without it the rungs that need torch are left out.
        reference: a session of the checkpoint on the bundle's rows, where there is one already.

    Raises:
        BundleError: the package that quantizes as the program was quantized is not installed.
    """
    dense = bundle.manifest.backends["executorch"].dense

    def stored(checkpoint: Checkpoint, blob: Blob | None) -> ReferenceSession:
        try:
            with quiet_libraries():
                from molkv_export.backends.executorch.stored_weights import stored_tensors

                tensors = stored_tensors(checkpoint, dense)
        except ModuleNotFoundError as error:
            raise BundleError(
                f"{bundle.path}: its ExecuTorch program cannot be compared with torch: "
                f"{error.name} is not installed",
                fix="pip install 'molkv[executorch]', or verify without --checkpoint",
            ) from None
        return ReferenceSession(checkpoint, blob, replaced=tensors)

    yield from InexactLadder(
        bundle,
        session,
        LIMITS[dense],
        StoredWeights(exact=False, reference=stored),
        checkpoint=checkpoint,
        reference=reference,
    ).climb()
