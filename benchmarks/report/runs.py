"""Runs benchmarks one after another; what is measured already is not measured again."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report.catalogue import ROOT, Benchmark
from benchmarks.report.machine import this_machine

__all__ = ["Outcome", "Results", "read_results", "run_benchmark", "unmeasured"]

Results = Mapping[str, dict[str, Any]]
"""What benchmarks wrote, by the benchmark's name, each with a `run`: when, where and how."""

_LOG_LINES = 15


@dataclass(frozen=True)
class Outcome:
    """What became of one benchmark.

    Attributes:
        name: the benchmark's.
        problem: why there is no result; None if there is one.
    """

    name: str
    problem: str | None = None


def result_file(results: Path, name: str) -> Path:
    """Where a benchmark's result is kept."""
    return results / f"{name}.json"


def unmeasured(benchmarks: Sequence[Benchmark], results: Path, *, quick: bool) -> list[Benchmark]:
    """Those without a readable result of the command that they are run by today.

    A result that does not say how it came about, because it is from elsewhere, counts.
    """

    def is_measured(benchmark: Benchmark) -> bool:
        try:
            document = _read(result_file(results, benchmark.name))
        except (OSError, ValueError):
            return False
        run = document.get("run")
        return run is None or run.get("command") == benchmark.shown(quick=quick)

    return [each for each in benchmarks if not is_measured(each)]


def read_results(results: Path, benchmarks: Sequence[Benchmark]) -> Results:
    """Every result that is there.

    Raises:
        ValueError: a file is no JSON object; the message names it.
    """
    found = {}
    for benchmark in benchmarks:
        file = result_file(results, benchmark.name)
        if file.exists():
            found[benchmark.name] = _read(file)
    return found


def run_benchmark(
    benchmark: Benchmark,
    results: Path,
    models: Path,
    *,
    quick: bool,
    prepare: bool = False,
    on_start: Callable[[Path], None] = lambda _: None,
) -> Outcome:
    """Run one benchmark, and keep its result only when it is complete.

    Args:
        benchmark: which.
        results: the folder of results; gets ``NAME.json`` and ``NAME.log``.
        models: the folder where it may keep models.
        quick: run its quick variant.
        prepare: only make its models.
        on_start: told where its output goes.
    """
    if problem := benchmark.missing():
        return Outcome(benchmark.name, problem)
    results.mkdir(parents=True, exist_ok=True)
    models.mkdir(parents=True, exist_ok=True)
    file = result_file(results, benchmark.name)
    partial, log = file.with_suffix(".partial"), file.with_suffix(".log")
    partial.unlink(missing_ok=True)
    on_start(log)
    command = benchmark.command(models.absolute(), partial.absolute(), quick=quick, prepare=prepare)
    began, at = time.perf_counter(), dt.datetime.now(dt.UTC)
    status = _run(command, log, partial if benchmark.prints_json else None)
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        ending = "\n".join(lines[-_LOG_LINES:])
        return Outcome(benchmark.name, f"exit status {status}; {log} ends with:\n{ending}")
    if prepare:
        return Outcome(benchmark.name)
    try:
        document = _read(partial)
    except (OSError, ValueError) as error:
        return Outcome(benchmark.name, f"wrote no result: {error}")
    document["run"] = {
        "date": at.date().isoformat(),
        "seconds": round(time.perf_counter() - began, 1),
        "command": benchmark.shown(quick=quick),
        "quick": quick,
        "machine": this_machine().to_json(),
    }
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)
    return Outcome(benchmark.name)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON ({error}); remove it and measure again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file}: is no JSON object; remove it and measure again")  # noqa: TRY004
    return document


def _run(command: Sequence[str], log: Path, output: Path | None) -> int:
    """Run a command, its output to a log or, what it prints, to a file; its exit status."""
    log.write_bytes(b"")
    with log.open("ab") as errors, (output or log).open("ab") as printed:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=errors,
            start_new_session=True,
        )
        try:
            return process.wait()
        finally:
            # Its children too, if this is interrupted.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
