"""The pass that writes the expert rows: anew or continued, by one process or by several ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from molkv_export.blob_files import BlobFiles
from molkv_export.errors import ExportError, InterruptedExportError
from molkv_export.expert_blob import blob_headers, expert_slices, share_of, write_expert_blob
from molkv_export.journal import Continuation, Journal, arithmetic, facts_of_rows, keep_only
from molkv_export.reparameterize import ExpertTable
from molkv_model.checkpoint import Checkpoint
from molkv_model.ranks import Ranks
from molkv_runtime.manifest import EmbeddingPrecision
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = ["ExpertPass", "require_same_inputs", "wait_for_all", "write_blob"]

logger = logging.getLogger(__name__)


class ExpertPass:
    """What is to be written, and how far it is.

    Args:
        checkpoint: one with experts.
        experts: the rows' precision.
        identity: the checkpoint's.
        ranks: the processes that divide the vocabulary among them.
        shard_size: the most bytes of a file; None makes a single one.
        embedding: precision of the input embedding in every row; None leaves it out.

    Raises:
        ExportError: `shard_size` is too small.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        experts: ExpertPrecision,
        identity: bytes,
        ranks: Ranks,
        shard_size: int | None = None,
        embedding: EmbeddingPrecision | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._experts = experts
        self._ranks = ranks
        self._headers = blob_headers(checkpoint.config, experts, identity, shard_size, embedding)
        self._slices = expert_slices(checkpoint.config, self._headers[0].layout())

    def continuation(self, *, force: bool) -> Continuation:
        """Whether this pass can go on in a folder that was left.

        Args:
            force: whether the rows of another export may be discarded.
        """
        facts = facts_of_rows(self._headers, self._slices, self._ranks.device)
        return Continuation(facts, self._headers, force)

    def write(self, folder: Path | None, on_rows: Callable[[int], None]) -> list[Path]:
        """Write the rows that are not there yet; returns when every rank has.

        Args:
            folder: the unfinished bundle; the first rank tells the others, which pass None.
            on_rows: called on the first rank with the number of rows that are there, of all ranks.

        Returns:
            the blob's files.

        Raises:
            CheckpointError: an embedding is not finite.
            ExportError: an expert cannot be represented, or a file cannot be written.
            InterruptedExportError: another rank is gone.
        """
        missing = self._slices if folder is None else self._prepare(folder)
        with _lost_ranks():
            folder, missing = self._ranks.share_object((folder, missing))
        journal, files = Journal(folder, self._ranks.rank), BlobFiles(folder, self._headers)
        done = sum(map(len, self._slices)) - sum(map(len, missing))

        def on_slice(ids: range) -> None:
            nonlocal done
            if not self._ranks.is_first:
                return
            done += len(ids)
            alone = self._ranks.count == 1
            on_rows(done if alone else sum(end - first for first, end in journal.done()))

        if done:
            logger.info("%s: %d rows are there already", folder, done)
            on_rows(done)
        table = ExpertTable(self._checkpoint, self._ranks.device)
        mine = share_of(missing, self._ranks)
        write_expert_blob(table, files, journal, self._experts, mine, on_slice)
        wait_for_all(self._ranks)
        return files.paths

    def _prepare(self, folder: Path) -> list[range]:
        """Make files and journal, or find them; returns the slices that are missing."""
        journal, files = Journal(folder), BlobFiles(folder, self._headers)
        if journal.facts() is None:
            files.create()
            journal.begin(facts_of_rows(self._headers, self._slices, self._ranks.device))
        else:
            keep_only(folder, files.paths)
            journal.compact()
        done = journal.done()
        return [ids for ids in self._slices if (ids.start, ids.stop) not in done]


def write_blob(
    checkpoint: Checkpoint,
    folder: Path,
    experts: ExpertPrecision,
    identity: bytes,
    embedding: EmbeddingPrecision | None = None,
) -> list[Path]:
    """Write a blob alone, by this process.

    Args:
        checkpoint: one with experts.
        folder: an existing folder without a blob.
        experts: the rows' precision.
        identity: the checkpoint's.
        embedding: precision of the input embedding in every row; None leaves it out.

    Returns:
        its files.
    """
    rows = ExpertPass(checkpoint, experts, identity, Ranks(), embedding=embedding)
    files = rows.write(folder, lambda _: None)
    Journal(folder).remove()
    return files


def require_same_inputs(identity: bytes, ranks: Ranks) -> None:
    """Check that all ranks have the same checkpoint, and compute alike.

    Args:
        identity: of this rank's checkpoint.
        ranks: all of them.

    Raises:
        ExportError: a rank differs from the first one.
        InterruptedExportError: another rank is gone.
    """
    with _lost_ranks():
        every = ranks.gather_objects((identity.hex(), arithmetic(ranks.device)))
    for number, rank in enumerate(every):
        for name, ours, first in zip(("checkpoint", "arithmetic"), rank, every[0], strict=True):
            if ours != first:
                raise ExportError(
                    f"rank {number} has {name} {ours}, rank 0 has {first}",
                    fix="give every rank the same checkpoint, processor kind and torch",
                )


def wait_for_all(ranks: Ranks) -> None:
    """Return when all ranks have come here.

    Raises:
        InterruptedExportError: another rank is gone.
    """
    with _lost_ranks():
        ranks.wait()


@contextmanager
def _lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has no narrower one for lost connections
        raise InterruptedExportError(
            f"another rank of this export is gone ({str(error).splitlines()[0]})",
            fix="see what it said; the same command goes on where this one stopped",
        ) from error
