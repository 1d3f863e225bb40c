"""Every combination of precisions, exported to a temporary folder and evaluated."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import msgspec
from tokenizers import Tokenizer

from molkv_export.backends.catalogue import BACKENDS, check_model, write_dense_graph
from molkv_export.cache_scales import CacheScales
from molkv_export.calibration import calibrate
from molkv_export.errors import ExportError
from molkv_export.evaluate import Predictor, evaluate
from molkv_export.expert_pass import write_blob
from molkv_export.expert_precisions import row_bytes, row_precisions
from molkv_export.fidelity import Combination, Fidelity, Footprint
from molkv_export.plan import make_plan
from molkv_export.reference import ReferenceSession
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import MolkvError
from molkv_runtime.golden import GOLDEN_FILE
from molkv_runtime.manifest import (
    SCHEMA_VERSION,
    BackendEntry,
    FileEntry,
    Manifest,
    ModelEntry,
    QuantizationEntry,
)
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.session import Session

__all__ = ["CombinationProgress", "combinations", "evaluate_combinations", "require_room"]

logger = logging.getLogger(__name__)

BACKEND = "onnx"

Precision = TypeVar("Precision", bound=str)


@dataclass(frozen=True)
class CombinationProgress:
    """That `tokens` more were scored, or a step begun, of what `name` says."""

    name: str
    tokens: int


def combinations(
    checkpoint: Checkpoint,
    experts: Sequence[str] | None = None,
    dense: Sequence[str] | None = None,
    cache: Sequence[str] | None = None,
) -> list[Combination]:
    """Every combination of precisions that ONNX bundles of a model can have.

    Args:
        checkpoint: the model; one without experts has one precision less to choose.
        experts: precisions of the expert rows; None is all that the model's dimensions allow.
        dense: precisions of the dense weights; None likewise.
        cache: precisions of the self-attention cache; None is all.

    Raises:
        ExportError: a precision is unknown, or the model's dimensions do not allow it.
    """
    config, backend = checkpoint.config, BACKENDS[BACKEND]
    backend.require_packages(BACKEND)
    rows: list[ExpertPrecision | None] = [None]
    if config.has_experts:
        every = row_precisions(config)[::-1]
        rows = [*_named("experts", experts, every, lambda name: row_bytes(config, name))]
    weights = _named(
        "dense", dense, backend.precisions, lambda name: check_model(BACKEND, config, name)
    )
    caches = _named("cache", cache, backend.caches, lambda _: None)
    return [Combination(*choice) for choice in product(rows, weights, caches)]


def _named(
    what: str,
    wanted: Sequence[str] | None,
    offered: Sequence[Precision],
    check: Callable[[Precision], object],
) -> list[Precision]:
    """The precisions that are wanted, in their order and once each; all that pass if None is."""
    if wanted is None:
        return [precision for precision in offered if _passes(check, precision)]
    known = {str(precision): precision for precision in offered}
    for name in wanted:
        if name not in known:
            raise ExportError(
                f"{what} is {name!r}, which this model cannot have in {BACKEND}",
                fix=f"choose among {', '.join(known)}",
            )
        check(known[name])
    return [known[name] for name in dict.fromkeys(wanted)]


def _passes(check: Callable[[Precision], object], precision: Precision) -> bool:
    try:
        check(precision)
    except MolkvError as error:
        logger.warning("%s is left out: %s", precision, error.problem)
        return False
    return True


def require_room(checkpoint: Checkpoint, chosen: Iterable[Combination]) -> None:
    """Check that the temporary folder has room for the largest combination.

    Raises:
        ExportError: it has not.
    """
    plans = [
        make_plan(
            checkpoint, combination.experts or "int8", precisions={BACKEND: combination.dense}
        )
        for combination in chosen
    ]
    needed, folder = max(plan.total_bytes for plan in plans), tempfile.gettempdir()
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ExportError(
            f"{folder}: {free:,} bytes are free, a temporary bundle needs {needed:,}",
            fix="free space, or set TMPDIR to a folder on another disk",
        )


def evaluate_combinations(
    checkpoint: Checkpoint,
    chosen: Sequence[Combination],
    token_ids: Sequence[int],
    *,
    against: Predictor,
    tokenizer: Tokenizer | None,
    engine: str = "native",
    threads: int | None = None,
    on_progress: Callable[[CombinationProgress], None] | None = None,
) -> list[Fidelity]:
    """Export and evaluate combinations one after another, as `export` would make them.

    The blob of an expert precision is written once. A graph is written for each combination, since
    its inputs have the type of the rows, and replaces the one before it; so a temporary folder
    holds one bundle at a time.

    Args:
        checkpoint: the trained model.
        chosen: what to evaluate; combinations of one expert precision side by side.
        token_ids: the text.
        against: the trained model as a predictor; it is asked for every combination anew.
        tokenizer: the checkpoint's; the cache's scales are calibrated on its golden prompts.
        engine: of the sessions.
        threads: of the sessions.
        on_progress: told where the work stands.

    Raises:
        ExportError: an expert or weight cannot be represented, or storage ran out.
        UsageError: the text is shorter than two tokens.
    """
    report = on_progress or (lambda _: None)
    results: list[Fidelity] = []
    with tempfile.TemporaryDirectory(prefix="molkv-eval-") as name:
        exported = _TemporaryBundle(checkpoint, Path(name), tokenizer)
        for combination in chosen:
            title = str(combination)
            report(CombinationProgress(title, 0))
            bundle = exported.become(combination)

            def on_tokens(count: int, title: str = title) -> None:
                report(CombinationProgress(title, count))

            with Session(bundle, engine=engine, threads=threads) as session:
                result = evaluate(session, token_ids, against=against, on_tokens=on_tokens)
            results.append(Fidelity(title, combination, Footprint.of(bundle, BACKEND), result))
            logger.info("%s: %s", title, result)
    return results


class _TemporaryBundle:
    """A bundle that becomes one combination after another; no golden cases, no verdict.

    Args:
        checkpoint: the trained model.
        folder: an empty folder.
        tokenizer: the checkpoint's.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, tokenizer: Tokenizer | None) -> None:
        self.checkpoint = checkpoint
        self.folder = folder
        self.tokenizer = tokenizer
        self.identity = checkpoint.identity()
        self._experts: ExpertPrecision | None = None
        self._cache_scales: CacheScales | None = None

    def become(self, combination: Combination) -> Bundle:
        """Write what is missing of a combination.

        Raises:
            ExportError: it cannot be represented or written.
        """
        try:
            if combination.experts != self._experts:
                self._write_rows(combination.experts)
            if combination.cache == "int8" and self._cache_scales is None:
                self._cache_scales = self._calibrated()
            graph = write_dense_graph(
                BACKEND,
                self.checkpoint,
                self.folder,
                combination.experts or "int8",
                self.identity.hex(),
                combination.dense,
                self._cache_scales if combination.cache == "int8" else None,
            )
        except OSError as error:
            raise ExportError(
                f"{error.filename or self.folder}: cannot be written: {error.strerror}",
                fix="free space, or set TMPDIR to a folder on another disk",
            ) from None
        return Bundle(self.folder, self._manifest(combination, graph.entry))

    def _write_rows(self, experts: ExpertPrecision | None) -> None:
        for file in self._blob_files():
            file.unlink()
        self._cache_scales = None  # the scales are measured on the rows
        self._experts = experts
        if experts is not None:
            write_blob(self.checkpoint, self.folder, experts, self.identity)

    def _calibrated(self) -> CacheScales:
        config = self.checkpoint.config
        files = self._blob_files()
        if not files:
            return calibrate(config, self.tokenizer, ReferenceSession(self.checkpoint, None))
        blob = Blob.open(files)
        try:
            return calibrate(config, self.tokenizer, ReferenceSession(self.checkpoint, blob))
        finally:
            blob.close()

    def _blob_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.molkv"))

    def _manifest(self, combination: Combination, entry: BackendEntry) -> Manifest:
        files = [
            FileEntry(file.name, file.stat().st_size, sha256="")
            for file in sorted(self.folder.iterdir())
        ]
        return Manifest(
            schema_version=SCHEMA_VERSION,
            producer={},
            identity=self.identity.hex(),
            model=msgspec.convert(self.checkpoint.config.to_bundle(), ModelEntry),
            quantization=QuantizationEntry(experts=combination.experts),
            experts=[file.name for file in self._blob_files()],
            backends={BACKEND: entry},
            tokenizer=None,
            golden=GOLDEN_FILE,
            files=files,
        )
