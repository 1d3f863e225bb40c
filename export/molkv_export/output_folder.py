"""An output folder that appears under its name only when it is whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from molkv_export.errors import ExportError
from molkv_runtime.manifest import MANIFEST_FILE

__all__ = ["partial_folder", "put_in_place", "require_replaceable"]


def require_replaceable(out: Path, *, force: bool) -> None:
    """Refuse a target that is in the way.

    Raises:
        ExportError: it exists and `force` is off, or it is something else than a bundle.
    """
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out}: exists already", fix="pass --force to replace it")
    if not _is_bundle(out):
        raise ExportError(
            f"{out}: is not a bundle, so it will not be replaced", fix="choose another folder"
        )


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """Make a hidden folder beside `out`, and remove it when the block ends, whatever ends it.

    SIGTERM ends the block like SIGINT does, where the program has no handler of its own. What a
    killed process left behind is removed by the next one that makes the same `out`.

    Args:
        out: the final folder; its parents are made.

    Yields:
        the hidden folder, locked as long as this process lives.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    with _terminable():
        folder = Path(tempfile.mkdtemp(prefix=_partial_prefix(out), dir=out.parent))
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                folder.chmod(0o755)
                yield folder
            finally:
                os.close(descriptor)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, out: Path) -> None:
    """Rename a finished folder; a bundle that is there already goes away only if that works."""
    if not out.exists():
        folder.rename(out)
        return
    # A folder cannot be renamed over another, so the old one steps aside for a moment.
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
    try:
        out.rename(aside / "bundle")
        folder.rename(out)
    except BaseException:
        if not out.exists():
            (aside / "bundle").rename(out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _partial_prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _is_bundle(folder: Path) -> bool:
    """Whether its manifest is one of ours, of whatever version: others use that file name too."""
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and {"schema_version", "identity", "model"} <= fields.keys()


def _remove_abandoned(out: Path) -> None:
    """Remove partial folders whose process is gone: nobody holds their lock."""
    for folder in out.parent.iterdir():
        if not folder.name.startswith(_partial_prefix(out)) or not folder.is_dir():
            continue
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


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
