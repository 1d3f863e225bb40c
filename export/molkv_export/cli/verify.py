"""`molkv verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from molkv_export.cli.console import error_console, output_console, print_json, warn
from molkv_export.cli.options import BundleArgument, JsonOption
from molkv_runtime.bundle import Bundle
from molkv_runtime.manifest import EVALUATED, ParityEntry

__all__ = ["print_verdict", "verdict_json", "verify"]


def verify(
    bundle: BundleArgument,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The bundle's checkpoint: rows are computed anew, logits compared with torch.",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Verify this graph only, and record nothing; repeatable.",
            show_default="all",
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option(help="Write the verdict into the bundle's manifest.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Climb the parity ladder: does the bundle compute what torch computed? Exit code 1 is no.

    Example: molkv verify bundle --checkpoint checkpoint
    """
    from molkv_export.verify import record_verdict
    from molkv_export.verify import verify as run_verify
    from molkv_model.checkpoint import Checkpoint

    opened = Bundle.open(bundle)
    source = None if checkpoint is None else Checkpoint(checkpoint)
    with error_console().status("climbing the parity ladder") as status:
        verdict = run_verify(
            opened,
            checkpoint=source,
            backends=backend,
            on_rung=lambda rung: status.update(f"done: {escape(rung.name)}"),
        )
    if as_json:
        print_json(verdict_json(verdict))
    else:
        print_verdict(verdict)
    if record and backend is None:
        try:
            record_verdict(opened, verdict)
        except OSError as error:
            warn(f"{bundle}: the verdict could not be recorded: {error.strerror}")
    if not verdict.passed:
        raise typer.Exit(1)


def print_verdict(verdict: ParityEntry) -> None:
    """The rungs as a table, and the verdict."""
    table = Table(title="Parity", title_justify="left", title_style="bold")
    for column in ("rung", "figure", "limit", "", "over"):
        table.add_column(column, justify="right" if column in ("figure", "limit") else "left")
    for rung in verdict.rungs:
        mark = "[green]pass[/]" if rung.passed else "[bold red]FAIL[/]"
        relation = ">=" if rung.at_least else "<="
        table.add_row(
            escape(rung.name),
            f"{rung.figure:.3g}",
            f"{relation} {rung.limit:.3g}",
            mark,
            escape(rung.detail),
        )
    console = output_console()
    console.print(table)
    if any(EVALUATED in rung.name for rung in verdict.rungs):
        console.print(
            "There is no Core ML on this system: rungs that say "
            f'"{EVALUATED}" evaluated the saved program op by op instead of running it.'
        )
    console.print(
        "[bold green]parity: passed[/]" if verdict.passed else "[bold red]parity: FAILED[/]"
    )


def verdict_json(verdict: ParityEntry) -> dict[str, Any]:
    """`passed` and `rungs`, as ``--json`` prints them."""
    rungs = [
        {
            "name": rung.name,
            "passed": rung.passed,
            "figure": rung.figure,
            "limit": rung.limit,
            "at_least": rung.at_least,
            "detail": rung.detail,
        }
        for rung in verdict.rungs
    ]
    return {"passed": verdict.passed, "rungs": rungs}
