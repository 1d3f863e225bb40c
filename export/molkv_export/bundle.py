"""Export: runs the passes in order and puts the finished bundle in place, or nothing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import msgspec

from molkv_export.backends.catalogue import (
    BACKENDS,
    check_model,
    write_dense_graph,
)
from molkv_export.cache_scales import CacheScales
from molkv_export.calibration import calibrate
from molkv_export.embedding_place import (
    EmbeddingPlace,
    stored_embedding,
    warn_of_tied_embedding,
)
from molkv_export.errors import ExportError
from molkv_export.expert_choice import ExpertChoice
from molkv_export.expert_pass import ExpertPass, require_same_inputs, wait_for_all
from molkv_export.export_config import ExportConfig
from molkv_export.golden import make_golden
from molkv_export.journal import Journal
from molkv_export.model_card import CARD_FILE, model_card
from molkv_export.output_folder import (
    abandoned_bytes,
    partial_folder,
    put_in_place,
    require_alone,
    require_replaceable,
)
from molkv_export.pass_costs import PassCost, measured
from molkv_export.plan import ExportPlan, make_plan, require_exportable
from molkv_export.reference import ReferenceSession
from molkv_export.threads import torch_threads
from molkv_export.verify import record_verdict, verify
from molkv_model.checkpoint import TOKENIZER_FILE, Checkpoint
from molkv_model.errors import ModelError
from molkv_model.ranks import Ranks
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle, file_sha256
from molkv_runtime.errors import MolkvError
from molkv_runtime.golden import GOLDEN_FILE
from molkv_runtime.manifest import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    BackendEntry,
    CalibrationEntry,
    FileEntry,
    Manifest,
    ModelEntry,
    QuantizationEntry,
    TokenizerEntry,
    write_json,
)
from molkv_runtime.native import NativeTokenizer
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.text import load_tokenizer

__all__ = ["ExportConfig", "ExportProgress", "export"]

logger = logging.getLogger(__name__)

# One rank may have hours of work left when another is done; a lost one is noticed at once.
_LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True)
class ExportProgress:
    """Where an export stands: `done` of `total` units of a named pass.

    `cost` is there once the pass is done.
    """

    name: str
    done: int
    total: int
    cost: PassCost | None = None


def export(
    checkpoint: str | Path,
    out: str | Path,
    backends: Sequence[str] = ("onnx",),
    experts: ExpertPrecision = "int8",
    *,
    tokenizer: str | Path | None = None,
    force: bool = False,
    dense: str | Mapping[str, str] | None = None,
    cache: str | None = None,
    shard_size: int | None = None,
    embedding: EmbeddingPlace = "graph",
    choice: ExpertChoice | None = None,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> Bundle:
    """Turn a checkpoint into a bundle and verify it.

    The bundle is made under a temporary name beside `out` and renamed when it is complete and its
    parity verdict is in its manifest. If an export of the same checkpoint to the same folder was
    interrupted, the rows that it has written are not computed again.

    Under torchrun the ranks divide the vocabulary among them, and all of them must see `out`.

    Args:
        checkpoint: a folder in Hugging Face layout.
        out: the bundle folder to make.
        backends: whose dense graphs to write; ``onnx``, ``executorch``, ``coreml``.
        experts: ``int8``, ``int4`` or ``f16`` rows.
        tokenizer: a ``tokenizer.json`` to use instead of the checkpoint's.
        force: replace an existing folder.
        dense: precision of the dense weights, for all backends or by backend, such as
            ``{"executorch": "int8"}``. A backend that gets none has its default: ``fp32``, Core
            ML's ``fp16``.
        cache: ``int8`` makes ONNX's self-attention cache a quarter of float32's. None is the
            default of every backend.
        shard_size: the most bytes of a file of the expert blob; None makes a single file.
        embedding: ``graph`` puts the input embedding into every dense graph, ``storage`` into the
            expert rows, so that it is not in memory.
        choice: how `experts` was chosen, for the manifest.
        on_progress: told where the export stands, on the first rank.

    Returns:
        the opened bundle; a failed verdict is in its manifest, not an exception.

    Raises:
        ExportError: an option is wrong, `out` is in the way, a weight cannot be represented, or
            storage ran out, or another process is exporting to `out`.
        ModelError: the checkpoint cannot be used.
        TokenizerError: the tokenizer does not fit the model.
    """
    config = ExportConfig(
        checkpoint=Path(checkpoint),
        out=Path(out),
        backends=tuple(backends),
        experts=experts,
        tokenizer=None if tokenizer is None else Path(tokenizer),
        force=force,
        dense=dense,
        cache=cache,
        shard_size=shard_size,
        embedding=embedding,
    )
    if choice is not None and choice.experts != config.experts:
        raise ExportError(
            f"experts is {config.experts}, but {choice.experts} was chosen",
            fix="give the precision that was chosen",
        )
    with Ranks(_LONGEST_WAIT) as ranks:
        try:
            return _Export(config, ranks, choice, on_progress or (lambda _: None)).execute()
        except (MolkvError, ModelError) as error:
            if ranks.count == 1:
                raise
            who = f"rank {ranks.rank} of {ranks.count}"
            raise ExportError(f"{who}: {error.problem}", fix=error.fix) from error


class _Export:
    """One export: the passes share the open checkpoint and the ranks."""

    def __init__(
        self,
        config: ExportConfig,
        ranks: Ranks,
        choice: ExpertChoice | None,
        on_progress: Callable[[ExportProgress], None],
    ) -> None:
        self.config = config
        self.ranks = ranks
        self.choice = choice
        self.on_progress = on_progress
        self.checkpoint = Checkpoint(config.checkpoint)
        require_exportable(self.checkpoint.config)
        self.embedding = stored_embedding(self.checkpoint.config, config.embedding)
        self.tokenizer_file = config.tokenizer or self.checkpoint.tokenizer_file
        self.tokenizer = None
        self.backend_entries: dict[str, BackendEntry] = {}
        if self.tokenizer_file is not None:
            size = self.checkpoint.config.vocab_size
            self.tokenizer = load_tokenizer(self.tokenizer_file, size)
            NativeTokenizer(self.tokenizer_file).close()  # what devices cannot read is refused here
        for backend, dense in config.precisions.items():
            check_model(backend, self.checkpoint.config, dense)
        if ranks.is_first:
            self._check_target()
            if self.embedding is not None:
                warn_of_tied_embedding(self.checkpoint.config, config.backends)

    def execute(self) -> Bundle:
        out = self.config.out
        try:
            with torch_threads(self.checkpoint.config.hidden_size):
                self._work_together()
        except OSError as error:
            raise ExportError(
                f"{error.filename2 or error.filename or out}: cannot be written: {error.strerror}",
                fix="free space or choose another folder, then export again",
            ) from None
        wait_for_all(self.ranks)
        return Bundle.open(out, verify_checksums=False)

    def _work_together(self) -> None:
        """All ranks compute expert rows; the first one does everything else."""
        with self._pass("identity"):
            identity = self.checkpoint.identity()
            require_same_inputs(identity, self.ranks)
        rows = None
        if self.checkpoint.config.has_experts:
            config = self.config
            rows = ExpertPass(
                self.checkpoint,
                config.experts,
                identity,
                self.ranks,
                config.shard_size,
                self.embedding,
            )
        if not self.ranks.is_first:
            self._write_blob(rows, None)
            return
        continuation = None if rows is None else rows.continuation(force=self.config.force)
        with partial_folder(self.config.out, continuation) as folder:
            self._write(folder, identity, self._write_blob(rows, folder))
            self._require_replaceable()  # it may have come into being meanwhile
            Journal(folder).remove()
            put_in_place(folder, self.config.out)

    def _write(self, folder: Path, identity: bytes, blob_files: list[Path]) -> None:
        files = [*blob_files]
        cache_scales = self._calibrate(blob_files)
        for backend, dense in self.config.precisions.items():
            with self._pass(f"{backend} graph"):
                graph = write_dense_graph(
                    backend,
                    self.checkpoint,
                    folder,
                    self.config.experts,
                    identity.hex(),
                    dense,
                    cache_scales if self.config.caches[backend] == "int8" else None,
                    self.embedding,
                )
            files += graph.files
            self.backend_entries[backend] = graph.entry
        if self.tokenizer_file is not None:
            files.append(folder / TOKENIZER_FILE)
            shutil.copyfile(self.tokenizer_file, files[-1])
        files.append(self._write_golden(folder, blob_files))
        experts = [file.name for file in blob_files]
        self._write_manifest(folder, identity, files, experts)
        with self._pass("verify"):
            bundle = Bundle.open(folder, verify_checksums=False)
            record_verdict(bundle, verify(bundle, checkpoint=self.checkpoint))

    def _write_blob(self, rows: ExpertPass | None, folder: Path | None) -> list[Path]:
        if rows is None:
            return []
        total = self.checkpoint.config.vocab_size
        with self._pass("expert rows", total):
            return rows.write(folder, lambda done: self._report("expert rows", done, total))

    def _write_golden(self, folder: Path, blob_files: list[Path]) -> Path:
        file, config = folder / GOLDEN_FILE, self.checkpoint.config
        with self._pass("golden cases"), self._reference(blob_files) as (reference, blob):
            write_json(file, make_golden(config, self.tokenizer, reference, blob))
        return file

    def _calibrate(self, blob_files: list[Path]) -> CacheScales | None:
        """Scales of an int8 self-attention cache; None where no graph has one."""
        if "int8" not in self.config.caches.values():
            return None
        with self._pass("cache scales"), self._reference(blob_files) as (reference, _):
            return calibrate(self.checkpoint.config, self.tokenizer, reference)

    @contextmanager
    def _reference(self, files: list[Path]) -> Iterator[tuple[ReferenceSession, Blob | None]]:
        blob = Blob.open(files) if files else None
        try:
            yield ReferenceSession(self.checkpoint, blob), blob
        finally:
            if blob is not None:
                blob.close()

    def _write_manifest(
        self, folder: Path, identity: bytes, files: list[Path], experts: list[str]
    ) -> None:
        """The manifest and the model card, which quotes it."""
        entries = [_file_entry(file, folder) for file in files]
        manifest = self._manifest(identity, entries, experts)
        card = folder / CARD_FILE
        card.write_text(model_card(manifest, self._plan()), encoding="utf-8")
        entries = [*manifest.files, _file_entry(card, folder)]
        manifest = msgspec.structs.replace(manifest, files=entries)
        write_json(folder / MANIFEST_FILE, manifest)

    def _plan(self) -> ExportPlan:
        return make_plan(
            self.checkpoint,
            self.config.experts,
            self.tokenizer_file,
            precisions=self.config.precisions,
            caches=self.config.caches,
            shard_size=self.config.shard_size,
            embedding=self.config.embedding,
        )

    def _manifest(self, identity: bytes, files: list[FileEntry], experts: list[str]) -> Manifest:
        config = self.checkpoint.config
        tokenizer = None
        if self.tokenizer is not None:
            tokenizer = TokenizerEntry(TOKENIZER_FILE, self.tokenizer.get_vocab_size())
        return Manifest(
            schema_version=SCHEMA_VERSION,
            producer={name: version(name) for name in ("molkv", "torch", *self._packages())},
            identity=identity.hex(),
            model=msgspec.convert(config.to_bundle(), ModelEntry),
            quantization=QuantizationEntry(
                experts=self.config.experts if config.has_experts else None,
                embedding=self.embedding,
                calibration=None if self.choice is None else _calibration(self.choice),
            ),
            experts=experts,
            backends=self.backend_entries,
            tokenizer=tokenizer,
            golden=GOLDEN_FILE,
            files=files,
        )

    def _packages(self) -> list[str]:
        return [name for backend in self.config.backends for name in BACKENDS[backend].packages]

    def _check_target(self) -> None:
        out = self.config.out
        self._require_replaceable()
        require_alone(out)
        parent = next(folder for folder in out.absolute().parents if folder.exists())
        needed = self._plan().total_bytes
        free = shutil.disk_usage(parent).free + abandoned_bytes(out)
        if free < needed:
            raise ExportError(
                f"{parent}: {free:,} bytes are free, the bundle needs {needed:,}",
                fix="free space or choose another folder",
            )

    def _require_replaceable(self) -> None:
        inputs = [path for path in (self.checkpoint.path, self.tokenizer_file) if path is not None]
        require_replaceable(self.config.out, force=self.config.force, inputs=inputs)

    @contextmanager
    def _pass(self, name: str, total: int = 1) -> Iterator[None]:
        self._report(name, 0, total)
        with measured() as cost:
            yield
        self._report(name, total, total, cost)

    def _report(self, name: str, done: int, total: int, cost: PassCost | None = None) -> None:
        logger.info("%s: %d of %d", name, done, total)
        if not self.ranks.is_first:
            return
        self.on_progress(ExportProgress(name, done, total, cost))


def _calibration(choice: ExpertChoice) -> CalibrationEntry:
    comparison = choice.trials[-1].comparison
    assert comparison is not None  # noqa: S101 - it was chosen by it; for the type checker
    return CalibrationEntry(
        max_kl=choice.max_kl,
        kl_divergence=comparison.kl_divergence.mean,
        same_top1=comparison.same_top1.mean,
        tokens=choice.tokens,
    )


def _file_entry(file: Path, folder: Path) -> FileEntry:
    name = file.relative_to(folder).as_posix()
    return FileEntry(name, file.stat().st_size, file_sha256(file))
