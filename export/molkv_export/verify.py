"""The parity ladder (docs/graph.md): does this bundle compute what torch computed?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, Divergence, block_rows, compare_logits
from molkv_export.golden import golden_logits
from molkv_export.inexact_ladder import InexactLadder, StoredWeights
from molkv_export.op_parity import OP_TOLERANCE, WRONG_FORMULA_DIFFERENCE, op_parity
from molkv_export.reference import ReferenceSession
from molkv_export.row_rungs import climb_rows
from molkv_export.rungs import (
    PrecisionLimits,
    at_least,
    at_most,
    difference,
    distance,
    listed,
    nearest_to_limit,
)
from molkv_export.threads import torch_threads
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.engines import TextCodec
from molkv_runtime.errors import BundleError
from molkv_runtime.golden import Golden, GoldenCase, GoldenSampling
from molkv_runtime.manifest import (
    MANIFEST_FILE,
    DensePrecision,
    ParityEntry,
    RungEntry,
    write_json,
)
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session

__all__ = ["record_verdict", "verify"]

logger = logging.getLogger(__name__)

_SAME_TOP1_LIMIT = 0.999
_KL_LIMIT = 1e-6
# Quantized dense weights of ExecuTorch, whose activations are rounded too (docs/executorch.md).
_QUANTIZED_LIMITS: dict[DensePrecision, PrecisionLimits] = {
    "int8": PrecisionLimits(1500, nats=0.005, same_top1=0.9),
    "int4": PrecisionLimits(1500, nats=0.1, same_top1=0.7),
}
_CHUNKS = (1, 7, 64)


def verify(
    bundle: Bundle,
    *,
    checkpoint: Checkpoint | None = None,
    reference: ReferenceSession | None = None,
    backends: Sequence[str] | None = None,
    record: bool = False,
    on_rung: Callable[[RungEntry], None] | None = None,
) -> ParityEntry:
    """Climb the ladder.

    Args:
        bundle: an open bundle; its files' checksums are compared first.
        checkpoint: where the bundle came from. With it, rows are computed anew and logits are
            compared with torch at every position; without it, with what golden.json recorded.
        reference: a session of the checkpoint on the bundle's rows, where there is one already:
            its weights are then not loaded again.
        backends: whose graphs to verify; None is all.
        record: write the verdict into the bundle's manifest; where that cannot be done, a warning
            is logged.
        on_rung: called with every rung as it is done.

    Raises:
        BundleError: a file is damaged, the checkpoint is another one's, or the bundle lacks a
            backend.
        RowCorruptError: a row does not match its checksum.
    """
    bundle.verify_files()
    if checkpoint is not None and checkpoint.identity().hex() != bundle.manifest.identity:
        raise BundleError(
            f"{checkpoint.path}: is not the checkpoint of {bundle.path}",
            fix="name the checkpoint that the bundle was exported from",
        )
    chosen = list(bundle.manifest.backends) if backends is None else list(backends)
    for backend in chosen:
        bundle.graph_file(backend)
    rungs = []
    with torch_threads(bundle.manifest.model.hidden_size):
        for rung in _every_rung(bundle, chosen, checkpoint, reference):
            rungs.append(rung)
            if on_rung is not None:
                on_rung(rung)
    verdict = ParityEntry(passed=all(rung.passed for rung in rungs), rungs=rungs)
    if record:
        try:
            record_verdict(bundle, verdict)
        except OSError as error:
            logger.warning("%s: the verdict cannot be recorded: %s", bundle.path, error.strerror)
    return verdict


def _every_rung(
    bundle: Bundle,
    backends: Sequence[str],
    checkpoint: Checkpoint | None,
    reference: ReferenceSession | None,
) -> Iterator[RungEntry]:
    """What concerns the bundle, then the ladder of every backend."""
    yield from climb_rows(bundle, checkpoint)
    for backend in backends:
        climb = _climb_coreml if backend == "coreml" else _climb_session
        for rung in climb(bundle, backend, checkpoint, reference):
            name = rung.name if len(backends) == 1 else f"{rung.name} ({backend})"
            yield msgspec.structs.replace(rung, name=name)


def _climb_session(
    bundle: Bundle,
    backend: str,
    checkpoint: Checkpoint | None,
    reference: ReferenceSession | None,
) -> Iterator[RungEntry]:
    """The ladder of a backend with a session in Python; its last rungs on both engines."""
    golden, dense = bundle.load_golden(), bundle.manifest.backends[backend].dense
    longest = max(len(case.prompt_ids) for case in golden.cases)
    if bundle.expert_files:
        yield from _op(bundle, backend)
    with Session(bundle, backend=backend, chunk=longest) as session:
        if dense in _QUANTIZED_LIMITS:
            yield from _climb_quantized(bundle, dense, session, checkpoint, reference)
            return
        yield from _Ladder(bundle, session, golden, checkpoint, reference).climb()
    del session  # before the graph is loaded again
    with Session(bundle, backend=backend, engine="reference", chunk=longest) as session:
        yield from _Ladder(bundle, session, golden, checkpoint, reference).climb_again()


def _op(bundle: Bundle, backend: str) -> Iterator[RungEntry]:
    for result in op_parity(bundle, backend):
        make = at_least if result.must_differ else at_most
        limit = WRONG_FORMULA_DIFFERENCE if result.must_differ else OP_TOLERANCE
        yield make(f"3 op: {result.name}", result.difference, limit, result.detail)


def _climb_quantized(
    bundle: Bundle,
    dense: DensePrecision,
    session: Session,
    checkpoint: Checkpoint | None,
    reference: ReferenceSession | None,
) -> Iterator[RungEntry]:
    from molkv_export.backends.executorch.stored_weights import stored_tensors

    def stored(checkpoint: Checkpoint, blob: Blob | None) -> ReferenceSession:
        return ReferenceSession(checkpoint, blob, replaced=stored_tensors(checkpoint, dense))

    yield from InexactLadder(
        bundle,
        session,
        _QUANTIZED_LIMITS[dense],
        StoredWeights(exact=False, reference=stored),
        checkpoint=checkpoint,
        reference=reference,
    ).climb()


def _climb_coreml(
    bundle: Bundle,
    _: str,
    checkpoint: Checkpoint | None,
    reference: ReferenceSession | None,
) -> Iterator[RungEntry]:
    """Core ML's ladder; its library takes long to import, and is not always there."""
    try:
        from molkv_export.backends.coreml import parity
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{bundle.path}: its Core ML graph cannot be verified: {error.name} is not installed",
            fix="pip install 'molkv[coreml]', or name the other graphs with --backend",
        ) from None
    return parity.climb(bundle, checkpoint, reference)


def record_verdict(bundle: Bundle, verdict: ParityEntry) -> None:
    """Write a verdict into the bundle's manifest.

    Raises:
        OSError: the manifest cannot be written.
    """
    manifest = msgspec.structs.replace(bundle.manifest, parity=verdict)
    write_json(bundle.path / MANIFEST_FILE, manifest)


@dataclass(frozen=True)
class _Ladder:
    """The rungs of one backend. Its session runs the longest prompt in one chunk."""

    bundle: Bundle
    session: Session
    golden: Golden
    checkpoint: Checkpoint | None
    reference: ReferenceSession | None

    def climb(self) -> Iterator[RungEntry]:
        blob = self.bundle.open_experts()
        try:
            yield self._chunks()
            yield from self._recorded_logits()
            if self.checkpoint is not None:
                yield from self._torch_logits(blob)
            if self.session.tokenizer is not None:
                yield self._tokenizer(self.session.tokenizer)
            yield from self._tokens("tokens")
        finally:
            if blob is not None:
                blob.close()

    def climb_again(self) -> Iterator[RungEntry]:
        """What the session's engine may change, when another one has climbed the whole ladder."""
        if self.session.tokenizer is not None:
            yield self._tokenizer(self.session.tokenizer, ", reference engine")
        yield from self._tokens("tokens, reference engine")

    def _chunks(self) -> RungEntry:
        """Prefill of the longest prompt in one chunk, in many, and token by token."""
        case = max(self.golden.cases, key=lambda case: len(case.prompt_ids))
        ids, worst = case.prompt_ids, 0.0
        lengths = self._lengths(len(ids))
        for length in lengths:
            whole = self._logits_after(ids[:length], length)
            for chunk in _CHUNKS:
                worst = max(worst, distance(self._logits_after(ids[:length], chunk), whole))
        detail = f"{listed(lengths)} tokens in chunks of {listed(_CHUNKS)}"
        return at_most("4 prefill in chunks", worst, case.logits_tolerance, detail)

    def _lengths(self, longest: int) -> list[int]:
        """Where prefills end: the window just full, just slid, in the middle and at the end."""
        window = self.bundle.manifest.model.expert_window
        lengths = {window, window + 1, longest // 2, longest}
        return sorted(length for length in lengths if 0 < length <= longest)

    def _logits_after(self, ids: list[int], chunk: int) -> NDArray[np.float32]:
        self.session.reset()
        for first in range(0, len(ids), chunk):
            logits = self.session.prefill(ids[first : first + chunk])
        return logits

    def _recorded_logits(self) -> Iterator[RungEntry]:
        cases = self.golden.cases
        pairs = [(self._recordeddistance(case), case.logits_tolerance) for case in cases]
        yield at_most("5 logits: recorded", *nearest_to_limit(pairs), f"{len(cases)} prompts")

    def _recordeddistance(self, case: GoldenCase) -> float:
        self.session.reset()
        logits = self.session.prefill(case.prompt_ids)
        digest, recorded = golden_logits(logits), case.logits
        pairs = [
            *zip(logits[recorded.token_ids].tolist(), recorded.values, strict=True),
            (digest.mean, recorded.mean),
            (digest.root_mean_square, recorded.root_mean_square),
        ]
        return max(difference(ours, theirs) for ours, theirs in pairs)

    def _torch_logits(self, blob: Blob | None) -> Iterator[RungEntry]:
        """Every position of every golden prompt and its continuation."""
        assert self.checkpoint is not None  # noqa: S101 - the caller checked
        reference = self.reference or ReferenceSession(self.checkpoint, blob)
        pairs, parts = list[tuple[float, float]](), list[Divergence]()
        for case in self.golden.cases:
            tolerance = case.logits_tolerance
            for ours, theirs in self._beside_torch(case, reference):
                pairs.append((distance(ours, theirs), tolerance))
                parts.append(compare_logits(ours, theirs, near_tie=tolerance))
        comparison = Comparison.of(parts)
        detail = f"{comparison.same_top1.count} positions"
        yield at_most("5 logits: max-abs to torch", *nearest_to_limit(pairs), detail)
        # Logits that differ by at most e have at most e²/2 nats between them.
        nats = max(_KL_LIMIT, max(tolerance for _, tolerance in pairs) ** 2 / 2)
        yield at_most("5 logits: KL divergence", comparison.kl_divergence.mean, nats, "nats")
        yield at_least("5 logits: same top-1", comparison.same_top1.mean, _SAME_TOP1_LIMIT, detail)

    def _beside_torch(
        self, case: GoldenCase, reference: ReferenceSession
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Logits of a prompt and its continuation, ours and torch's, in blocks of positions."""
        ids = (case.prompt_ids + case.greedy)[: self.session.context]
        rows = min(block_rows(self.session.model.vocab_size), self.session.chunk)
        reference.reset()
        return zip(
            self.session.logits_blocks(ids, rows=rows),
            reference.run_blocks(ids, rows),
            strict=True,
        )

    def _tokenizer(self, tokenizer: TextCodec, suffix: str = "") -> RungEntry:
        """Whether texts become the recorded ids, and recorded ids the recorded texts."""
        cases = self.golden.cases
        changed = sum(
            (case.text is not None and tokenizer.encode(case.text) != case.prompt_ids)
            or tokenizer.decode(case.greedy) != case.greedy_text
            for case in cases
        )
        return at_most(f"6 tokenizer{suffix}", changed, 0, f"{len(cases)} prompts")

    def _tokens(self, what: str) -> Iterator[RungEntry]:
        cases = self.golden.cases
        greedy = [(case, case.greedy, SamplingConfig()) for case in cases]
        sampled = [(case, case.sampled.token_ids, _sampling_config(case.sampled)) for case in cases]
        for name, runs in (("greedy", greedy), ("sampled", sampled)):
            changed = sum(self._generated(*run) != run[1] for run in runs)
            count = sum(len(token_ids) for _, token_ids, _ in runs)
            detail = f"{len(cases)} prompts, {count} tokens"
            yield at_most(f"6 {name} {what}", changed, 0, detail)

    def _generated(
        self, case: GoldenCase, expected: list[int], sampling: SamplingConfig
    ) -> list[int]:
        tokens = self.session.generate(
            case.prompt_ids, max_new_tokens=len(expected), sampling=sampling, stop_ids=()
        )
        return [token.id for token in tokens]


def _sampling_config(settings: GoldenSampling) -> SamplingConfig:
    return SamplingConfig(
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
        seed=settings.seed,
    )
