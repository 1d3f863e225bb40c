"""The parity ladder (docs/graph.md): does this bundle compute what torch computed?"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, compare_logits
from molkv_export.expert_blob import pack_slice, slice_starts
from molkv_export.golden import dequantized_digest, golden_logits, row_digest
from molkv_export.op_parity import OP_TOLERANCE, op_parity
from molkv_export.reference import ReferenceSession
from molkv_export.reparameterize import ExpertTable
from molkv_export.threads import torch_threads, worthwhile_threads
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.golden import Golden, GoldenCase
from molkv_runtime.manifest import MANIFEST_FILE, ParityEntry, RungEntry, write_json
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session

__all__ = ["verify"]

_SAME_TOP1_LIMIT = 0.999
_KL_LIMIT = 1e-6
_CHUNKS = (1, 7, 64)


def verify(
    bundle: Bundle,
    *,
    checkpoint: Checkpoint | None = None,
    record: bool = False,
    on_rung: Callable[[RungEntry], None] | None = None,
) -> ParityEntry:
    """Climb the ladder.

    Args:
        bundle: an open bundle; its files' checksums are compared first.
        checkpoint: where the bundle came from. With it, rows are computed anew and logits are
            compared with torch at every position; without it, with what golden.json recorded.
        record: write the verdict into the bundle's manifest.
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
    golden, width = bundle.load_golden(), bundle.manifest.model.hidden_size
    for backend in bundle.manifest.backends:
        with (
            torch_threads(width),
            Session(bundle, backend=backend, threads=worthwhile_threads(width)) as session,
        ):
            for rung in _Ladder(bundle, backend, session, golden, checkpoint).climb():
                rungs.append(rung)
                if on_rung is not None:
                    on_rung(rung)
    verdict = ParityEntry(passed=all(rung.passed for rung in rungs), rungs=rungs)
    if record:
        manifest = msgspec.structs.replace(bundle.manifest, parity=verdict)
        write_json(bundle.path / MANIFEST_FILE, manifest)
    return verdict


@dataclass(frozen=True)
class _Ladder:
    bundle: Bundle
    backend: str
    session: Session
    golden: Golden
    checkpoint: Checkpoint | None

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
            yield from self._tokens()
        finally:
            if blob is not None:
                blob.close()

    def _rows(self, blob: Blob) -> Iterator[RungEntry]:
        rows = self.golden.rows
        batch = blob.read([row.token_id for row in rows])
        read = [batch.rows[place] for place in batch.index]
        pairs = list(zip(rows, read, strict=True))
        changed = sum(row_digest(blob, data) != row.bytes_sha256 for row, data in pairs)
        yield _at_most("1 row bytes: golden = reader", changed, 0, f"{len(pairs)} rows")
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
            yield make(f"3 op: {result.name}", result.difference, OP_TOLERANCE, "relative")

    def _chunks(self) -> RungEntry:
        """Prefill of the longest prompt in one chunk, in many, and token by token."""
        case = max(self.golden.cases, key=lambda case: len(case.prompt_ids))
        ids = np.array(case.prompt_ids)
        whole = self._logits_in_chunks(ids, len(ids))
        worst = max(_distance(self._logits_in_chunks(ids, chunk), whole) for chunk in _CHUNKS)
        detail = f"{len(ids)} tokens in chunks of {', '.join(map(str, _CHUNKS))}"
        return _at_most("4 prefill in chunks", worst, self.golden.logits_tolerance, detail)

    def _logits_in_chunks(self, ids: NDArray[np.int64], chunk: int) -> NDArray[np.float32]:
        threads = worthwhile_threads(self.bundle.manifest.model.hidden_size)
        with Session(self.bundle, backend=self.backend, chunk=chunk, threads=threads) as session:
            return session.logits(ids)

    def _recorded_logits(self) -> Iterator[RungEntry]:
        worst = max(self._recorded_distance(case) for case in self.golden.cases)
        limit = self.golden.logits_tolerance
        yield _at_most("5 logits: recorded", worst, limit, f"{len(self.golden.cases)} prompts")

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
        reference = ReferenceSession(self.checkpoint, blob)
        ours, theirs = [], []
        for case in self.golden.cases:
            ids = (case.prompt_ids + case.greedy)[: self.session.context]
            reference.reset()
            theirs.append(reference.run(ids))
            ours.append(self.session.logits(ids))
        got, wanted = np.concatenate(ours), np.concatenate(theirs)
        comparison = Comparison.of([compare_logits(got, wanted)])
        limit, detail = self.golden.logits_tolerance, f"{len(got)} positions"
        yield _at_most("5 logits: max-abs to torch", _distance(got, wanted), limit, detail)
        yield _at_most("5 logits: KL divergence", comparison.kl_divergence.mean, _KL_LIMIT, "nats")
        yield _at_least("5 logits: same top-1", comparison.same_top1.mean, _SAME_TOP1_LIMIT, detail)

    def _tokens(self) -> Iterator[RungEntry]:
        cases = self.golden.cases
        greedy = sampled = 0
        for case in cases:
            settings = case.sampled
            sampling = SamplingConfig(
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                min_p=settings.min_p,
                seed=settings.seed,
            )
            greedy += self._generated(case, len(case.greedy), None) != case.greedy
            count = len(settings.token_ids)
            sampled += self._generated(case, count, sampling) != settings.token_ids
        detail = f"{len(cases)} prompts"
        yield _at_most("6 greedy tokens", greedy, 0, detail)
        yield _at_most("6 sampled tokens", sampled, 0, detail)

    def _generated(
        self, case: GoldenCase, count: int, sampling: SamplingConfig | None
    ) -> list[int]:
        tokens = self.session.generate(
            case.prompt_ids, max_new_tokens=count, sampling=sampling, stop_ids=()
        )
        return [token.id for token in tokens]


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
