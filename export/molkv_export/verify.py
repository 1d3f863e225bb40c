"""The parity ladder (docs/graph.md): does this bundle compute what torch computed?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from molkv_export.divergence import Comparison, Divergence, block_rows, compare_logits
from molkv_export.golden_states import golden_states
from molkv_export.op_parity import OP_TOLERANCE, WRONG_FORMULA_DIFFERENCE, op_parity
from molkv_export.prefill_rungs import chunks_rung, recorded_rung
from molkv_export.reference import FinalStates
from molkv_export.rounded_ladder import climb_rounded
from molkv_export.row_rungs import climb_rows
from molkv_export.rungs import (
    at_least,
    at_most,
    distance,
    nearest_to_limit,
)
from molkv_export.threads import torch_threads
from molkv_export.tokenizer_rungs import climb_tokenizer
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.golden import Golden, GoldenCase, GoldenSampling
from molkv_runtime.manifest import (
    MANIFEST_FILE,
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
_CHUNKS = (1, 7, 64)


def verify(
    bundle: Bundle,
    *,
    checkpoint: Checkpoint | None = None,
    backends: Sequence[str] | None = None,
    record: bool = False,
    on_rung: Callable[[RungEntry], None] | None = None,
) -> ParityEntry:
    """Climb the ladder.

    Args:
        bundle: an open bundle; its files' checksums are compared first.
        checkpoint: where the bundle came from. With it, rows are computed anew and logits are
            compared with torch at every position; without it, with what golden.json recorded.
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
    chosen = list(dict.fromkeys(bundle.manifest.backends if backends is None else backends))
    for backend in chosen:
        bundle.graph_file(backend)
    rungs = []
    with torch_threads(bundle.manifest.model.hidden_size):
        for rung in _every_rung(bundle, chosen, checkpoint):
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
) -> Iterator[RungEntry]:
    """The rows, the ladder of every backend, the tokenizer."""
    yield from climb_rows(bundle, checkpoint)
    for backend in backends:
        climb = _climb_coreml if backend == "coreml" else _climb_session
        for rung in climb(bundle, backend, checkpoint):
            name = rung.name if len(backends) == 1 else f"{rung.name} ({backend})"
            yield msgspec.structs.replace(rung, name=name)
    yield from climb_tokenizer(bundle)


def _climb_session(
    bundle: Bundle,
    backend: str,
    checkpoint: Checkpoint | None,
) -> Iterator[RungEntry]:
    """The ladder of a backend with a session in Python; its last rungs on both engines."""
    golden = bundle.load_golden()
    longest = max(len(case.prompt_ids) for case in golden.cases)
    if bundle.expert_files:
        yield from _op(bundle, backend)
    if not bundle.manifest.backends[backend].is_float32:
        open_session = partial(Session, bundle, backend=backend, chunk=longest)
        yield from climb_rounded(bundle, backend, open_session, checkpoint)
        return
    # Before the engine loads its copy of the weights: torch's are not needed beside it.
    reference = None if checkpoint is None else golden_states(bundle, checkpoint)
    with Session(bundle, backend=backend, chunk=longest) as session:
        yield from _Ladder(session, golden, reference).climb()
    del session  # before the graph is loaded again
    with Session(bundle, backend=backend, engine="reference", chunk=longest) as session:
        yield from _Ladder(session, golden, None).climb_again()


def _op(bundle: Bundle, backend: str) -> Iterator[RungEntry]:
    for result in op_parity(bundle, backend):
        make = at_least if result.must_differ else at_most
        limit = WRONG_FORMULA_DIFFERENCE if result.must_differ else OP_TOLERANCE
        yield make(f"3 op: {result.name}", result.difference, limit, result.detail)


def _climb_coreml(
    bundle: Bundle,
    _: str,
    checkpoint: Checkpoint | None,
) -> Iterator[RungEntry]:
    """Core ML's ladder; its library takes long to import, and is not always there."""
    try:
        from molkv_export.backends.coreml import parity
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{bundle.path}: its Core ML graph cannot be verified: {error.name} is not installed",
            fix="pip install 'molkv[coreml]', or name the other graphs with --backend",
        ) from None
    return parity.climb(bundle, checkpoint)


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

    session: Session
    golden: Golden
    reference: list[FinalStates] | None

    def climb(self) -> Iterator[RungEntry]:
        yield chunks_rung(self.session, self.golden.cases, _CHUNKS)
        yield recorded_rung(self.session, self.golden.cases)
        if self.reference is not None:
            yield from self._torch_logits(self.reference)
        yield from self._tokens("tokens")

    def climb_again(self) -> Iterator[RungEntry]:
        """What the session's engine may change, when another one has climbed the whole ladder."""
        yield from self._tokens("tokens, reference engine")

    def _torch_logits(self, reference: list[FinalStates]) -> Iterator[RungEntry]:
        """Every position of every golden prompt and its continuation."""
        pairs, parts = list[tuple[float, float]](), list[Divergence]()
        for case, states in zip(self.golden.cases, reference, strict=True):
            tolerance = case.logits_tolerance
            for ours, theirs in self._beside_torch(case, states):
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
        self, case: GoldenCase, states: FinalStates
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Logits of a prompt and its continuation, ours and torch's, in blocks of positions."""
        rows = min(block_rows(self.session.model.vocab_size), self.session.chunk)
        return zip(
            self.session.logits_blocks(case.sequence(self.session.context), rows=rows),
            states.logits_blocks(rows),
            strict=True,
        )

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
