"""Exports in processes of their own, which start fast: torch is imported once, in their server."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from molkv_export.bundle import ExportProgress

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["molkv_export.bundle", "molkv_export.verify"])

SLICE_ROWS = 8
"""Of the slices here: a small vocabulary so has many of them."""


def start(target: Any, *arguments: Any) -> ForkServerProcess:
    """Start a function of a test module in a process."""
    process = _CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def pipe() -> tuple[Any, Any]:
    """The ends to receive from and to send to."""
    return _CONTEXT.Pipe(duplex=False)


def use_small_slices() -> None:
    """In this process."""
    from molkv_export import expert_blob

    expert_blob.SLICE_ROWS = SLICE_ROWS


def export_in_small_slices(checkpoint: Path, out: Path, told: Any, options: dict[str, Any]) -> None:
    """Export and tell the rows that were there when the pass began, and that it is done."""
    from molkv_export import export

    use_small_slices()

    def on_progress(progress: ExportProgress) -> None:
        if progress.name == "expert rows" and progress.cost is None:
            told.send(progress.done)

    export(checkpoint, out, on_progress=on_progress, **options)
    told.send("done")


def export_as_rank(
    rank: int, count: int, port: int, work: Any, checkpoint: Path, out: Path, told: Any
) -> None:
    """What torchrun does for each of its processes; tells the error's text, or None."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    use_small_slices()
    try:
        work(rank, checkpoint, out)
    except BaseException as error:  # noqa: BLE001 - a rank ends with whatever error it has
        traceback.print_exc()
        told.send(str(error))
        os._exit(1)
    told.send(None)


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_ranks(count: int, work: Any, checkpoint: Path, out: Path) -> list[str | None]:
    """Let ranks work; every rank's error, in order of rank."""
    port, answers = free_port(), []
    processes = []
    for rank in range(count):
        receive, send = pipe()
        answers.append(receive)
        processes.append(start(export_as_rank, rank, count, port, work, checkpoint, out, send))
        send.close()
    errors: list[str | None] = []
    for answer, process in zip(answers, processes, strict=True):
        try:
            errors.append(answer.recv() if answer.poll(120) else "no answer")
        except EOFError:
            errors.append("gone")
        process.join(60)
    return errors
