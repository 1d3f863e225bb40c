"""What all commands print with: results on standard output, everything else on standard error."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from molkv_runtime.errors import MolkvError, UsageError

__all__ = [
    "OutputError",
    "discard_output",
    "error_console",
    "facts_table",
    "output_console",
    "prepare_streams",
    "print_json",
    "progress_bar",
    "size",
    "warn",
]

_FILE_WIDTH = 160


@functools.cache
def output_console() -> Console:
    """Results for people. In a file or a pipe, lines are not wrapped at a terminal's width."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _FILE_WIDTH
    return Console(highlight=False, width=width)


@functools.cache
def error_console() -> Console:
    """Messages and progress."""
    return Console(stderr=True, highlight=False)


def warn(text: str) -> None:
    """A warning on standard error."""
    error_console().print(f"[bold yellow]warning:[/] {escape(text)}", soft_wrap=True)


def prepare_streams() -> None:
    """Let no character be a reason to fail, whatever the locale's encoding.

    Raises:
        UsageError: standard output is closed.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for good
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for good
        raise UsageError("standard output is closed", fix="send it to /dev/null to see no results")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors="replace",
            line_buffering=sys.stdout.line_buffering,
        )


def discard_output() -> None:
    """Throw away what is still to be written, so that the interpreter's end does not fail by it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class OutputError(MolkvError):
    """Standard output cannot be written."""


class _Output(io.FileIO):
    """Standard output whose errors can be told from those of other files."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"standard output: cannot be written: {error.strerror}",
                fix="send it to a file on a disk with free space",
            ) from None


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
    sys.stdout.flush()


def facts_table(title: str, facts: Mapping[str, str]) -> RenderableType:
    """A title, which may be longer than the table, and two columns: a name and its value."""
    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(escape(name), escape(value))
    return Group(Text(title, style="bold", no_wrap=True, overflow="ignore"), table)


def progress_bar() -> Progress:
    """A bar with percentage and ETA on standard error; it vanishes when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
        disable=not error_console().is_terminal,
    )


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.2f} GiB"
