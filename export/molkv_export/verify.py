"""The parity ladder (docs/graph.md): does this bundle compute what torch computed?"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, Divergence, block_rows, compare_logits
from molkv_export.expert_blob import pack_slice, slice_starts
from molkv_export.golden import dequantized_digest, golden_logits, row_digest
from molkv_export.op_parity import OP_TOLERANCE, WRONG_FORMULA_DIFFERENCE, op_parity
from molkv_export.reference import ReferenceSession
from molkv_export.reparameterize import ExpertTable
from molkv_export.threads import torch_threads
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.engines import TextCodec
from molkv_runtime.errors import BundleError
from molkv_runtime.golden import Golden, GoldenCase, GoldenSampling
from molkv_runtime.manifest import MANIFEST_FILE, ParityEntry, RungEntry, write_json
from molkv_runtime.native import NativeBlob
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session

__all__ = ["record_verdict", "verify"]

logger = logging.getLogger(__name__)

_SAME_TOP1_LIMIT = 0.999
_KL_LIMIT = 1e-6
_CHUNKS = (1, 7, 64)


def verify(
    bundle: Bundle,
    *,
    checkpoint: Checkpoint | None = None,
    reference: ReferenceSession | None = None,
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
        record: write the verdict into the bundle's manifest; where that cannot be done, a warning
            is logged.
        on_rung: called with every rung as it is done.

    Raises:
        BundleError: a file is damaged, or the checkpoint is another one's.
        RowCorruptError: a row does not match its checksum.
    """
    bundle.verify_files()
    if checkpoint is not None and checkpoint.identity().hex() != bundle.manifest.identity:
        raise BundleError(
            f"{checkpoint.path}: is not the checkpoint of {bundle.path}",
            fix="name the checkpoint that the bundle was exported from",
        )
    rungs = []
    with torch_threads(bundle.manifest.model.hidden_size):
        for rung in _every_rung(bundle, checkpoint, reference):
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
    bundle: Bundle, checkpoint: Checkpoint | None, reference: ReferenceSession | None
) -> Iterator[RungEntry]:
    """The ladder of every backend; its last rungs once more with the reference engine."""
    golden = bundle.load_golden()
    longest = max(len(case.prompt_ids) for case in golden.cases)
    for backend in bundle.manifest.backends:
        with Session(bundle, backend=backend, chunk=longest) as session:
            yield from _Ladder(bundle, session, golden, checkpoint, reference).climb()
        del session  # before the graph is loaded again
        with Session(bundle, backend=backend, engine="reference", chunk=longest) as session:
            yield from _Ladder(bundle, session, golden, checkpoint, reference).climb_again()


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
            if blob is not None:
                yield from self._rows(blob)
                yield from self._op()
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

    def _rows(self, blob: Blob) -> Iterator[RungEntry]:
        rows = self.golden.rows
        batch = blob.read([row.token_id for row in rows])
        read = [batch.rows[place] for place in batch.index]
        pairs = list(zip(rows, read, strict=True))
        changed = sum(row_digest(blob, data) != row.bytes_sha256 for row, data in pairs)
        yield _at_most("1 row bytes: golden = reader", changed, 0, f"{len(pairs)} rows")
        with NativeBlob(self.bundle.expert_files) as native:
            theirs = native.read([row.token_id for row in rows]).rows
        changed = int((theirs != batch.rows).any(axis=1).sum())
        yield _at_most("1 row bytes: native = reader", changed, 0, f"{len(theirs)} rows")
        if self.checkpoint is not None:
            yield self._recomputed_rows(blob, self.checkpoint)
        changed = sum(
            dequantized_digest(blob, data) != row.dequantized_sha256 for row, data in pairs
        )
        yield _at_most("2 dequantized rows: golden = reader", changed, 0, f"{len(pairs)} rows")

    def _recomputed_rows(self, blob: Blob, checkpoint: Checkpoint) -> RungEntry:
        """Compute the first and the last slice anew; all rows would take as long as the export."""
        precision = self.bundle.manifest.quantization.experts
        assert precision is not None  # noqa: S101 - there is a blob; for the type checker
        table, starts = ExpertTable(checkpoint), slice_starts(blob.vocabulary_size)
        changed = count = 0
        for start in sorted({starts[0], starts[-1]}):
            expected = pack_slice(table, blob.layout, start, precision)
            stored = blob.read(np.arange(start, start + len(expected))).rows
            changed += int((expected != stored).any(axis=1).sum())
            count += len(expected)
        return _at_most("1 row bytes: writer = reader", changed, 0, f"{count} rows")

    def _op(self) -> Iterator[RungEntry]:
        for result in op_parity(self.bundle):
            make = _at_least if result.must_differ else _at_most
            limit = WRONG_FORMULA_DIFFERENCE if result.must_differ else OP_TOLERANCE
            yield make(f"3 op: {result.name}", result.difference, limit, result.detail)

    def _chunks(self) -> RungEntry:
        """Prefill of the longest prompt in one chunk, in many, and token by token."""
        case = max(self.golden.cases, key=lambda case: len(case.prompt_ids))
        ids, worst = case.prompt_ids, 0.0
        lengths = self._lengths(len(ids))
        for length in lengths:
            whole = self._logits_after(ids[:length], length)
            for chunk in _CHUNKS:
                worst = max(worst, _distance(self._logits_after(ids[:length], chunk), whole))
        detail = f"{_listed(lengths)} tokens in chunks of {_listed(_CHUNKS)}"
        return _at_most("4 prefill in chunks", worst, case.logits_tolerance, detail)

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
        pairs = [(self._recorded_distance(case), case.logits_tolerance) for case in cases]
        yield _at_most("5 logits: recorded", *_nearest_to_limit(pairs), f"{len(cases)} prompts")

    def _recorded_distance(self, case: GoldenCase) -> float:
        self.session.reset()
        logits = self.session.prefill(case.prompt_ids)
        digest, recorded = golden_logits(logits), case.logits
        pairs = [
            *zip(logits[recorded.token_ids].tolist(), recorded.values, strict=True),
            (digest.mean, recorded.mean),
            (digest.root_mean_square, recorded.root_mean_square),
        ]
        return max(_difference(ours, theirs) for ours, theirs in pairs)

    def _torch_logits(self, blob: Blob | None) -> Iterator[RungEntry]:
        """Every position of every golden prompt and its continuation."""
        assert self.checkpoint is not None  # noqa: S101 - the caller checked
        reference = self.reference or ReferenceSession(self.checkpoint, blob)
        pairs, parts = list[tuple[float, float]](), list[Divergence]()
        for case in self.golden.cases:
            tolerance = case.logits_tolerance
            for ours, theirs in self._beside_torch(case, reference):
                pairs.append((_distance(ours, theirs), tolerance))
                parts.append(compare_logits(ours, theirs, near_tie=tolerance))
        comparison = Comparison.of(parts)
        detail = f"{comparison.same_top1.count} positions"
        yield _at_most("5 logits: max-abs to torch", *_nearest_to_limit(pairs), detail)
        # Logits that differ by at most e have at most e²/2 nats between them.
        nats = max(_KL_LIMIT, max(tolerance for _, tolerance in pairs) ** 2 / 2)
        yield _at_most("5 logits: KL divergence", comparison.kl_divergence.mean, nats, "nats")
        yield _at_least("5 logits: same top-1", comparison.same_top1.mean, _SAME_TOP1_LIMIT, detail)

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
        return _at_most(f"6 tokenizer{suffix}", changed, 0, f"{len(cases)} prompts")

    def _tokens(self, what: str) -> Iterator[RungEntry]:
        cases = self.golden.cases
        greedy = [(case, case.greedy, SamplingConfig()) for case in cases]
        sampled = [(case, case.sampled.token_ids, _sampling_config(case.sampled)) for case in cases]
        for name, runs in (("greedy", greedy), ("sampled", sampled)):
            changed = sum(self._generated(*run) != run[1] for run in runs)
            count = sum(len(token_ids) for _, token_ids, _ in runs)
            detail = f"{len(cases)} prompts, {count} tokens"
            yield _at_most(f"6 {name} {what}", changed, 0, detail)

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


def _nearest_to_limit(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of figures with their limits, the one that is the largest part of its limit."""
    return max(pairs, key=lambda pair: pair[0] / pair[1])


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _distance(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    return _difference(float(np.abs(ours - theirs).max()), 0.0)


def _difference(ours: float, theirs: float) -> float:
    """Infinity for NaN, which would otherwise compare as no difference at all."""
    difference = abs(ours - theirs)
    return math.inf if math.isnan(difference) else difference


def _at_most(name: str, figure: float, limit: float, detail: str) -> RungEntry:
    return RungEntry(name, figure <= limit, _finite(figure), limit, detail=detail)


def _at_least(name: str, figure: float, limit: float, detail: str) -> RungEntry:
    return RungEntry(name, figure >= limit, _finite(figure), limit, True, detail)


def _finite(figure: float) -> float:
    """JSON has no NaN and no infinity; both mean as wrong as can be."""
    return float(figure) if math.isfinite(figure) else sys.float_info.max
