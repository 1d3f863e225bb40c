"""Runs every benchmark and renders docs/benchmarks.md.

    pip install --constraint constraints.txt '.[bench]'
    python -m benchmarks.report                     all that is not measured yet, then the document
    python -m benchmarks.report --quick             the same with small shapes, in minutes
    python -m benchmarks.report --only peers-4      one benchmark, then the document
    python -m benchmarks.report --only peers-4 --again
    python -m benchmarks.report --render            the document from the results that are there

A full run takes hours. A result is kept in a file of its own when its benchmark is complete, so a
run that was interrupted goes on with the benchmark that it was at; models are kept too. A result of
another command than today's counts as not measured. A quick run keeps its results, and its
document, in a folder of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.report.catalogue import CATALOGUE, ROOT, Benchmark
from benchmarks.report.document import render
from benchmarks.report.goals import goals
from benchmarks.report.runs import read_results, run_benchmark, unmeasured


def run_all(
    benchmarks: Sequence[Benchmark],
    results: Path,
    models: Path,
    *,
    quick: bool,
    prepare: bool,
    console: Console,
) -> dict[str, str]:
    """Run benchmarks one after another; why some have no result, by name."""
    problems = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("benchmarks", total=len(benchmarks))
        for benchmark in benchmarks:
            progress.update(task, description=benchmark.name)
            outcome = run_benchmark(
                benchmark,
                results,
                models,
                quick=quick,
                prepare=prepare,
                on_start=lambda log: progress.console.print(f"output in {log}", highlight=False),
            )
            if outcome.problem is not None:
                problems[benchmark.name] = outcome.problem
                progress.console.print(
                    f"{benchmark.name}: no result: {outcome.problem}", style="red", markup=False
                )
            progress.advance(task)
    return problems


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [benchmark.name for benchmark in CATALOGUE]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=", ".join(names))
    parser.add_argument("--again", action="store_true", help="measure what was measured already")
    parser.add_argument("--quick", action="store_true", help="small shapes and few turns")
    parser.add_argument(
        "--prepare", action="store_true", help="make the models, measure and render nothing"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("build/benchmarks"),
        metavar="FOLDER",
        help="with one JSON file a benchmark; build/benchmarks",
    )
    parser.add_argument(
        "--models", type=Path, metavar="FOLDER", help="20 GB of room; RESULTS/models"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="docs/benchmarks.md; in RESULTS if --quick"
    )
    parser.add_argument("--json", action="store_true", help="print goals and problems as JSON")
    return parser.parse_args()


def main() -> int:
    """Run, render, and say which goals are met."""
    arguments = parse_arguments()
    console = Console(stderr=True)
    results: Path = arguments.results / "quick" if arguments.quick else arguments.results
    models: Path = arguments.models or arguments.results / "models"
    out = arguments.out or (
        results / "benchmarks.md" if arguments.quick else ROOT / "docs" / "benchmarks.md"
    )
    chosen = [each for each in CATALOGUE if arguments.only is None or each.name in arguments.only]
    problems: dict[str, str] = {}
    if not arguments.render:
        if arguments.prepare:
            chosen = [each for each in chosen if each.prepares]
        elif not arguments.again:
            chosen = unmeasured(chosen, results, quick=arguments.quick)
        try:
            problems = run_all(
                chosen,
                results,
                models,
                quick=arguments.quick,
                prepare=arguments.prepare,
                console=console,
            )
        except KeyboardInterrupt:
            console.print("interrupted; the same command goes on with this benchmark")
            return 130
        if arguments.prepare:
            return 1 if problems else 0
    try:
        found = read_results(results, CATALOGUE)
        render(found, CATALOGUE, out, problems)
    except ValueError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    console.print(f"{len(found)} of {len(CATALOGUE)} benchmarks in {out}", highlight=False)
    if arguments.json:
        judged = [{**asdict(goal), "met": goal.met} for goal in goals(found)]
        print(json.dumps({"goals": judged, "problems": problems}, indent=2))
    else:
        for goal in goals(found):
            verdict = goal.verdict.strip("*")
            print(f"{verdict:13}{goal.figure_text:>9} {goal.bound_text:>9}  {goal.claim}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
