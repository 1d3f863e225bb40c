"""Renders results as ``docs/benchmarks.md`` with its plots."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.catalogue import BENCHMARKS, Benchmark
from benchmarks.report.goals import goals
from benchmarks.report.plots import PLOTS, draw
from benchmarks.report.runs import Results
from benchmarks.report.tables import TABLES, markdown_table

__all__ = ["render"]

Record = dict[str, Any]
_PROVEN_BY_TESTS = """\
The goals that are no figures are tests: killing an export at random moments and resuming it
(`tests/export/test_interrupted_exports.py`), a full disk (`tests/export/test_full_storage.py`),
short and interrupted reads and corrupted rows (`tests/attacks/test_unreliable_storage.py`), and two
processes that export to one folder (`tests/export/test_output_folder.py`).
"""


def render(
    results: Results,
    benchmarks: Sequence[Benchmark],
    out: Path,
    problems: Mapping[str, str] | None = None,
) -> None:
    """Write the document, and its plots into `images` beside it.

    Args:
        results: by benchmark; those that are missing are named as not measured.
        benchmarks: of the document, in its order.
        out: ``.md``; replaced when the new one is complete.
        problems: why a benchmark has no result, by its name.

    Raises:
        ValueError: a result lacks a field; the message names both.
    """
    sections: list[str] = []
    for benchmark in benchmarks:
        try:
            section = _section(benchmark, results, out, problems or {})
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{benchmark.name}: its result is of another form ({error!r}); measure it again "
                f"with --only {benchmark.name} --again"
            ) from None
        sections += [f"## {benchmark.title}\n", *section]
    parts = [
        "# Benchmarks\n",
        _introduction(results),
        "## What has to hold\n",
        _goals(results),
        _PROVEN_BY_TESTS,
        "## When and where\n",
        _runs(results, benchmarks),
        "## Machines\n",
        _machines(results),
        *sections,
    ]
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text("\n".join(parts), encoding="utf-8")
    partial.replace(out)


def _introduction(results: Results) -> str:
    text = (
        "Written by `python -m benchmarks.report`, which runs every benchmark and renders what\n"
        "they wrote; edits are lost. Compare within a table: a benchmark's candidates take\n"
        "turns in one run, so that all meet the same machine; another run meets another one.\n"
        "These are figures of a server, whose page cache and last-level cache no phone has.\n"
    )
    if any(document.get("run", {}).get("quick") for document in results.values()):
        text += (
            "\n**A quick run: small shapes and few turns. It shows that everything runs; its\n"
            "figures, and whether goals are met, mean nothing.**\n"
        )
    return text


def _goals(results: Results) -> str:
    rows = [
        [goal.claim, goal.verdict, goal.where or "-", goal.figure_text, goal.bound_text]
        for goal in goals(results)
    ]
    return (
        "Where a goal is about several figures, the worst of them counts and is named.\n\n"
        + markdown_table(("goal", "verdict", "which"), ("figure", "bound"), rows)
    )


def _runs(results: Results, benchmarks: Sequence[Benchmark]) -> str:
    rows = []
    numbers = _machine_numbers(results)
    for benchmark in benchmarks:
        document = results.get(benchmark.name)
        if document is None:
            rows.append([f"`{benchmark.name}`", "not measured", "-", "-", "-"])
            continue
        run = document.get("run")
        if run is None:
            rows.append([f"`{benchmark.name}`", "not known", "not known", "-", "-"])
            continue
        number = numbers[_machine_key(run["machine"])]
        rows.append(
            [
                f"`{benchmark.name}`",
                f"`{run['command']}`",
                run["date"],
                f"{run['seconds'] / 60:.1f}",
                str(number),
            ]
        )
    return markdown_table(("benchmark", "command", "date"), ("minutes", "machine"), rows)


def _machines(results: Results) -> str:
    numbers = _machine_numbers(results)
    found = {}
    for document in results.values():
        if "run" in document:
            machine = document["run"]["machine"]
            found[numbers[_machine_key(machine)]] = machine
    lines = []
    for number, machine in sorted(found.items()):
        versions = ", ".join(f"{name} {value}" for name, value in machine["versions"].items())
        lines.append(
            f"{number}. {machine['processor']}, {machine['architecture']}, {machine['cores']} "
            f"cores, {machine['memory_bytes'] / (1 << 30):.1f} GiB of memory, "
            f"{machine['system']}; {versions}.\n"
        )
    return "".join(lines) or "None is known.\n"


def _machine_numbers(results: Results) -> dict[str, int]:
    machines = [
        _machine_key(document["run"]["machine"])
        for document in results.values()
        if "run" in document
    ]
    return {key: number for number, key in enumerate(dict.fromkeys(machines), start=1)}


def _machine_key(machine: Record) -> str:
    return repr(sorted(machine.items()))


def _section(
    benchmark: Benchmark, results: Results, out: Path, problems: Mapping[str, str]
) -> list[str]:
    parts = [f"{_question(benchmark)}\n"]
    document = results.get(benchmark.name)
    if document is None:
        problem = problems.get(benchmark.name, "").splitlines()
        parts.append(f"Not measured{': ' + problem[0] if problem else ''}.\n")
        return parts
    name = document.get("benchmark", benchmark.name)
    parts.append(TABLES[name](document))
    if name in PLOTS:
        image = out.parent / "images" / f"benchmark-{benchmark.name}.svg"
        draw(name, document, image)
        parts.append(f"![{benchmark.title}](images/{image.name})\n")
    return parts


def _question(benchmark: Benchmark) -> str:
    """The first line of what the benchmark says about itself."""
    if benchmark.script is None:
        return "`molkv eval` on the embedded model, all combinations of precisions."
    source = (BENCHMARKS / benchmark.script).read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    question = text.splitlines()[0] if text else ""
    return f"{question} `benchmarks/{benchmark.script}` answers that."
