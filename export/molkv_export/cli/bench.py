"""`molkv bench`."""

from __future__ import annotations

import csv
import sys
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

from molkv_export.cli.console import error_console, output_console, print_json, progress_bar, size
from molkv_export.cli.options import (
    BackendOption,
    BundleArgument,
    EngineOption,
    ExpertsModeOption,
    JsonOption,
    ThreadsOption,
)
from molkv_runtime.benchmark import BenchConfig, BenchReport, BenchResult, PageCache, benchmark
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.session import DEFAULT_CHUNK, Session

__all__ = ["bench", "facts_line", "rows"]

Format = Literal["table", "md", "csv", "json"]
_HEADING = ("test", "tokens/s", "±", "lookup µs", "rows", "read KiB")


def bench(
    bundle: BundleArgument,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="N,…", help="Lengths of prefills.")
    ] = "512",
    generate: Annotated[
        str, typer.Option("--generate", "-n", metavar="N,…", help="Lengths of generations.")
    ] = "128",
    depth: Annotated[
        str, typer.Option("--depth", "-d", metavar="N,…", help="Tokens that are there before.")
    ] = "0,512,1024",
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", help="Samples of each test.", min=1)
    ] = 5,
    page_cache: Annotated[
        PageCache,
        typer.Option(
            help="warm: rows are in the page cache; cold: it is dropped before each sample."
        ),
    ] = "warm",
    experts_mode: ExpertsModeOption = "storage",
    backend: BackendOption = None,
    engine: EngineOption = "native",
    threads: ThreadsOption = None,
    chunk: Annotated[int, typer.Option(help="Prompt tokens that run at once.", min=1)] = (
        DEFAULT_CHUNK
    ),
    output: Annotated[
        Format, typer.Option("--output", "-o", help="What to print the results as.")
    ] = "table",
    as_json: JsonOption = False,
) -> None:
    """Measure prefill and decode at several depths, and what expert rows cost.

    Example: molkv bench bundle --generate 64 --depth 0,1024 --output md
    """
    config = BenchConfig(
        prompts=_numbers("--prompt", prompt),
        generations=_numbers("--generate", generate),
        depths=_numbers("--depth", depth),
        repetitions=repetitions,
        page_cache=page_cache,
    )
    with (
        Session(
            Bundle.open(bundle),
            backend=backend,
            engine=engine,
            threads=threads,
            chunk=chunk,
            experts_mode=experts_mode,
        ) as session,
        progress_bar() as bar,
    ):
        task = bar.add_task("bench", total=None)
        report = benchmark(
            session,
            config,
            lambda test, done, total: bar.update(
                task, description=str(test), completed=done, total=total
            ),
        )
    _print(report, "json" if as_json else output)


def rows(results: list[BenchResult]) -> list[tuple[str, ...]]:
    """The table's cells."""
    return [
        (
            str(result.test),
            f"{result.mean:.2f}",
            f"{result.deviation:.2f}",
            f"{result.lookup_us_per_token:.1f}",
            f"{result.rows_per_token:.2f}",
            f"{result.bytes_read_per_token / 1024:.1f}",
        )
        for result in results
    ]


def facts_line(report: BenchReport) -> str:
    """What was measured, on what."""
    facts: dict[str, Any] = report.facts
    model, machine = facts["model"], facts["machine"]
    parts = [
        f"{model['architecture']} {model['layers']} layers, d {model['hidden_size']}",
        f"{facts['backend']} {facts['dense']}, cache {facts['cache']}, "
        f"{size(facts['dense_bytes'])}",
    ]
    if facts["experts"] is not None:
        parts.append(
            f"experts {facts['experts']}, {size(facts['experts_bytes'])}, "
            f"{facts['experts_mode']}, page cache {facts['page_cache']}"
        )
    if facts["embedding"] == "storage":
        parts.append("embedding in the rows")
    parts += [
        f"window {size(report.window_bytes)}, peak memory {size(report.peak_rss_bytes)}",
        f"{facts['threads']} threads of {machine['processor']}",
    ]
    return "; ".join(parts)


def _print(report: BenchReport, output: Format) -> None:
    for test in report.skipped:
        error_console().print(f"skipped: {test}: the context has no room")
    if output == "json":
        print_json(report.to_json())
        return
    if output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        columns = [name for name in report.results[0].to_json() if name != "samples"]
        writer.writerow([*columns, "peak_rss_bytes", "window_bytes"])
        for result in report.results:
            figures = result.to_json()
            writer.writerow(
                [*(figures[name] for name in columns), report.peak_rss_bytes, report.window_bytes]
            )
    else:
        table = Table(box=box.MARKDOWN if output == "md" else box.ROUNDED)
        for number, name in enumerate(_HEADING):
            table.add_column(name, justify="right" if number else "left")
        for cells in rows(report.results):
            table.add_row(*cells)
        output_console().print(table)
        output_console().print(facts_line(report), soft_wrap=True)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}", fix="write integers, as in 128,512") from None
