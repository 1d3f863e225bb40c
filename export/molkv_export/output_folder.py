"""An output folder that appears under its name only when it is whole."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from molkv_export.errors import ExportError, InterruptedExportError
from molkv_export.exchange import exchange
from molkv_runtime.manifest import MANIFEST_FILE

__all__ = [
    "abandoned_bytes",
    "partial_folder",
    "put_in_place",
    "require_alone",
    "require_replaceable",
]

logger = logging.getLogger(__name__)

_ASIDE = "bundle"
_BLOCK = 512  # what st_blocks counts, whatever the file system


class Continuation(Protocol):
    """What becomes of an unfinished folder."""

    def can_continue(self, folder: Path) -> bool:
        """Whether to go on in a folder that another process left; if not, it is removed."""

    def is_worth_keeping(self, folder: Path) -> bool:
        """Whether an interruption leaves the folder to be continued."""


def require_replaceable(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse a target that is in the way.

    Args:
        out: the folder to make.
        force: whether a bundle that is there may be replaced.
        inputs: files and folders that the export reads.

    Raises:
        ExportError: it exists and `force` is off, it is something else than a bundle or a link,
            it lies inside a bundle, or an input lies inside it.
    """
    if out.is_symlink():
        raise ExportError(
            f"{out}: is a symbolic link, which would be replaced instead of the folder behind it",
            fix="name the folder itself",
        )
    _recover_replaced(out)
    parent = out.parent.resolve()
    for folder in (parent, *parent.parents):
        if _is_bundle(folder):
            raise ExportError(
                f"{out}: lies inside the bundle {folder}", fix="choose a folder outside of it"
            )
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise ExportError(
                f"{out}: holds {path}, which the export reads", fix="choose another folder"
            )
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out}: exists already", fix="pass --force to replace it")
    if not _is_bundle(out):
        raise ExportError(
            f"{out}: is not a bundle, so it will not be replaced", fix="choose another folder"
        )


def require_alone(out: Path) -> None:
    """Refuse to make a folder that another process is making.

    Raises:
        ExportError: one is.
    """
    for folder in _hidden(out, _partial_prefix(out)):
        descriptor = _locked(folder, fcntl.LOCK_NB)
        if descriptor is not None:
            os.close(descriptor)
        elif folder.exists():
            raise ExportError(
                f"{out}: another process is exporting to it, in {folder}",
                fix="wait until it is done, or choose another folder",
            )


def abandoned_bytes(out: Path) -> int:
    """Storage that unfinished folders of `out` take and its next export has to itself."""
    return sum(
        file.stat().st_blocks * _BLOCK
        for folder in _unlocked(out, _partial_prefix(out))
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    )


@contextmanager
def partial_folder(out: Path, continuation: Continuation | None = None) -> Iterator[Path]:
    """Make a hidden folder beside `out`, and remove it when the block ends, whatever ends it.

    With a continuation, the folder that an interrupted process left may be used instead of a new
    one. It stays if this block is interrupted in turn: by a signal, or by an
    `InterruptedExportError`. Any other error removes it.

    SIGTERM ends the block like SIGINT does, where the program has no handler of its own. What a
    killed process left behind and cannot be continued is removed.

    Args:
        out: the final folder; its parents are made.
        continuation: decides what can be continued; None never does.

    Yields:
        the hidden folder, locked as long as this process lives.

    Raises:
        ExportError: a folder holds what must not be removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with _terminable():
        folder, descriptor = _claim(out, continuation) or _make(out, _partial_prefix(out))
        keep = False
        try:
            folder.chmod(0o755)
            yield folder
        except BaseException as error:
            failed = isinstance(error, Exception) and not isinstance(error, InterruptedExportError)
            if not failed and continuation is not None:
                keep = continuation.is_worth_keeping(folder)
            if keep:
                logger.warning("%s is kept: the same export goes on from there", folder)
            raise
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def put_in_place(folder: Path, out: Path) -> None:
    """Rename a finished folder; a bundle that is there already goes away only if that works.

    Its files are on the disk before it has its name, so that a power cut cannot leave the name on
    a folder with holes.
    """
    _flush(folder)
    if not out.exists():
        folder.rename(out)
    elif not exchange(folder, out):
        _replace_in_two_steps(folder, out)
    _flush_entry(out.parent)


def _replace_in_two_steps(folder: Path, out: Path) -> None:
    """Where folders cannot be exchanged, the old one steps aside for a moment."""
    with _new_folder(out, _replaced_prefix(out)) as aside:
        try:
            out.rename(aside / _ASIDE)
            folder.rename(out)
        except BaseException:
            if not out.exists() and (aside / _ASIDE).exists():
                (aside / _ASIDE).rename(out)
            raise


def _recover_replaced(out: Path) -> None:
    """Give a bundle its name back that a process was killed while replacing."""
    for aside in _unlocked(out, _replaced_prefix(out)):
        if (aside / _ASIDE).exists() and not out.exists():
            (aside / _ASIDE).rename(out)
        shutil.rmtree(aside, ignore_errors=True)


def _claim(out: Path, continuation: Continuation | None) -> tuple[Path, int] | None:
    """The folder to go on in, with its lock; others that no process holds are removed."""
    claimed: tuple[Path, int] | None = None
    for folder in _hidden(out, _partial_prefix(out)):
        descriptor = _locked(folder, fcntl.LOCK_NB)
        if descriptor is None:
            continue
        try:
            if claimed is None and continuation is not None and continuation.can_continue(folder):
                claimed = folder, os.dup(descriptor)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException:
            if claimed is not None:
                os.close(claimed[1])
            raise
        finally:
            os.close(descriptor)
    return claimed


def _hidden(out: Path, prefix: str) -> list[Path]:
    """Hidden folders that exports to `out` have made."""
    if not out.parent.is_dir():
        return []
    return [
        folder
        for folder in sorted(out.parent.iterdir())
        if folder.name.startswith(prefix) and not folder.is_symlink() and folder.is_dir()
    ]


def _unlocked(out: Path, prefix: str) -> Iterator[Path]:
    """Hidden folders of `out` that no living process holds; locked while they are looked at."""
    for folder in _hidden(out, prefix):
        descriptor = _locked(folder, fcntl.LOCK_NB)
        if descriptor is not None:
            try:
                yield folder
            finally:
                os.close(descriptor)


def _make(out: Path, prefix: str) -> tuple[Path, int]:
    """A new folder beside `out`, and a descriptor that holds its lock."""
    descriptor = None
    while descriptor is None:
        # Before it is locked another process may take it for abandoned, and remove it.
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        descriptor = _locked(folder)
    return folder, descriptor


@contextmanager
def _new_folder(out: Path, prefix: str) -> Iterator[Path]:
    """A new folder beside `out`, locked, and removed in the end."""
    folder, descriptor = _make(out, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked(folder: Path, how: int = 0) -> int | None:
    """A descriptor that holds the folder's lock.

    Returns:
        None where the folder is gone, or `how` is LOCK_NB and another process holds the lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _partial_prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _replaced_prefix(out: Path) -> str:
    return f".{out.name}.replaced-"


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        _flush_entry(path)
    _flush_entry(folder)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such thing
            raise
    finally:
        os.close(descriptor)


def _is_bundle(folder: Path) -> bool:
    """Whether its manifest is one of ours, of whatever version: others use that file name too."""
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and {"schema_version", "identity", "model"} <= fields.keys()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack; only the main thread can, and only if it is not handled."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
