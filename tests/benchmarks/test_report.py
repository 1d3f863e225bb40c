"""The report runs what is not measured yet, and renders what is."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report.catalogue import BENCHMARKS, CATALOGUE, Benchmark
from benchmarks.report.document import render
from benchmarks.report.runs import read_results, run_benchmark, unmeasured
from tests.benchmarks.results import every_result

ROOT = Path(__file__).parents[2]


def named(name: str) -> Benchmark:
    (found,) = [benchmark for benchmark in CATALOGUE if benchmark.name == name]
    return found


def rendered(folder: Path, **changes: object) -> str:
    results = every_result() | changes
    out = folder / "benchmarks.md"
    render({name: each for name, each in results.items() if each}, CATALOGUE, out)
    return out.read_text(encoding="utf-8")


# The catalogue


def test_every_benchmark_of_the_folder_is_in_the_report() -> None:
    programs = {
        file.name
        for file in BENCHMARKS.glob("*.py")
        if 'if __name__ == "__main__"' in file.read_text(encoding="utf-8")
    }
    assert programs == {benchmark.script for benchmark in CATALOGUE} - {None}


@pytest.mark.parametrize("benchmark", CATALOGUE, ids=lambda benchmark: benchmark.name)
def test_every_option_is_one_that_the_benchmark_has(benchmark: Benchmark) -> None:
    file = (
        ROOT / "export" / "molkv_export" / "cli" / "evaluate.py"
        if benchmark.script is None
        else BENCHMARKS / benchmark.script
    )
    source = file.read_text(encoding="utf-8")
    options = {word for word in benchmark.arguments + benchmark.quick if word.startswith("--")}
    if benchmark.prepares:
        options.add("--prepare")
    if benchmark.script is None:  # typer names an option after its parameter
        written = {each: f"    {each[2:]}: " for each in options} | {"--json": "JsonOption"}
    else:
        written = {each: f'"{each}"' for each in options}
    assert [option for option in options if written[option] not in source] == []


# The document


def test_all_results_are_rendered(tmp_path: Path) -> None:
    text = rendered(tmp_path)
    for benchmark in CATALOGUE:
        assert f"\n## {benchmark.title}\n" in text
    assert "Example CPU, x86_64, 2 cores, 24.0 GiB" in text
    assert "onnxruntime 1.32.0" in text
    assert "2026-11-27" in text
    assert "2 threads" in text
    assert "not measured" not in text.lower()
    assert "quick run" not in text


def test_tables_are_whole_and_plots_exist(tmp_path: Path) -> None:
    text = rendered(tmp_path)
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        lines = block.splitlines()
        assert len(lines) > 2
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
    images = re.findall(r"\]\((images/[^)]+)\)", text)
    assert len(images) == 4
    for image in images:
        assert (
            "tokens/s" in (tmp_path / image).read_text()
            or "rows/s" in (tmp_path / image).read_text()
        )


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert rendered(first) == rendered(second)
    for image in (first / "images").iterdir():
        assert image.read_bytes() == (second / "images" / image.name).read_bytes()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    results = every_result()
    del results["row-reads"]
    out = tmp_path / "benchmarks.md"
    render(results, CATALOGUE, out, {"row-reads": "apt-get install fio"})
    assert "Not measured: apt-get install fio.\n" in out.read_text(encoding="utf-8")
    text = rendered(tmp_path, export=None)
    assert "| `export` | not measured |" in text
    assert re.search(r"Two torchrun ranks over one \| not measured", text)


def test_a_result_from_elsewhere_has_no_date(tmp_path: Path) -> None:
    foreign = {key: value for key, value in every_result()["export"].items() if key != "run"}
    assert "| `export` | not known |" in rendered(tmp_path, export=foreign)


def test_two_machines_are_told_apart(tmp_path: Path) -> None:
    other = every_result()["export"]
    other["run"]["machine"]["processor"] = "Other CPU"
    text = rendered(tmp_path, export=other)
    assert "1. Example CPU" in text
    assert "2. Other CPU" in text


def test_a_quick_run_says_that_it_means_nothing(tmp_path: Path) -> None:
    quick = every_result()["export"]
    quick["run"]["quick"] = True
    assert "**A quick run:" in rendered(tmp_path, export=quick)


# Runs

PROGRAM = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--json", type=pathlib.Path)
parser.add_argument("--positions", type=int)
arguments = parser.parse_args()
estimates = {"kl_divergence": 0.5, "same_top1": 0.5}
errors = {"kl_divergence_error": None, "same_top1_error": None}
document = {
    "benchmark": "expert_rounding",
    "positions": arguments.positions,
    "results": [{"scheme": "an example", **estimates, **errors}],
}
text = json.dumps(document)
print(text)
if arguments.json is not None:
    arguments.json.write_text(text)
"""


@pytest.fixture
def example(tmp_path: Path) -> Benchmark:
    """A benchmark that takes no time; it writes what a real one writes."""
    program = tmp_path / "example.py"
    program.write_text(PROGRAM)
    return dataclasses.replace(
        named("expert-rounding"),
        script=str(program),
        arguments=("--json", "{result}", "--positions", "4096"),
        quick=("--json", "{result}", "--positions", "64"),
    )


@pytest.mark.parametrize(("quick", "positions"), [(True, 64), (False, 4096)])
def test_a_benchmark_is_run_and_kept_and_rendered(
    example: Benchmark, tmp_path: Path, quick: bool, positions: int
) -> None:
    assert unmeasured([example], tmp_path, quick=quick) == [example]
    outcome = run_benchmark(example, tmp_path, tmp_path / "models", quick=quick)
    assert outcome.problem is None
    assert unmeasured([example], tmp_path, quick=quick) == []
    results = read_results(tmp_path, [example])
    assert results[example.name]["positions"] == positions
    assert results[example.name]["run"]["quick"] == quick
    render(results, [example], tmp_path / "benchmarks.md")
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "| an example |" in text
    assert f"--positions {positions}" in text


def test_a_result_of_another_command_is_not_measured(example: Benchmark, tmp_path: Path) -> None:
    assert run_benchmark(example, tmp_path, tmp_path / "models", quick=False).problem is None
    assert unmeasured([example], tmp_path, quick=False) == []
    assert unmeasured([example], tmp_path, quick=True) == [example]
    longer = dataclasses.replace(example, arguments=("--json", "{result}", "--positions", "8192"))
    assert unmeasured([longer], tmp_path, quick=False) == [longer]
    file = tmp_path / f"{example.name}.json"
    document = json.loads(file.read_text())
    del document["run"]
    file.write_text(json.dumps(document))
    assert unmeasured([longer], tmp_path, quick=False) == []
    file.write_text("{")
    assert unmeasured([longer], tmp_path, quick=False) == [longer]


def test_what_a_benchmark_prints_may_be_its_result(example: Benchmark, tmp_path: Path) -> None:
    printing = dataclasses.replace(
        example, arguments=("--positions", "8"), quick=("--positions", "8")
    )
    assert run_benchmark(printing, tmp_path, tmp_path, quick=False).problem is None
    assert read_results(tmp_path, [printing])[printing.name]["positions"] == 8


def test_a_benchmark_that_fails_leaves_no_result(example: Benchmark, tmp_path: Path) -> None:
    broken = dataclasses.replace(example, quick=("--json", "{result}", "--no-such-option"))
    outcome = run_benchmark(broken, tmp_path, tmp_path / "models", quick=True)
    assert outcome.problem is not None
    assert "exit status 2" in outcome.problem
    assert "--no-such-option" in outcome.problem
    assert unmeasured([broken], tmp_path, quick=True) == [broken]


def test_what_is_not_installed_is_named(example: Benchmark, tmp_path: Path) -> None:
    needs = dataclasses.replace(example, modules=("no_such_module",))
    outcome = run_benchmark(needs, tmp_path, tmp_path, quick=True)
    assert outcome.problem is not None
    assert "no_such_module missing: pip install" in outcome.problem
    needs = dataclasses.replace(example, programs=("no-such-program",))
    outcome = run_benchmark(needs, tmp_path, tmp_path, quick=True)
    assert outcome.problem == "apt-get install no-such-program"


def report(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.report", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_existing_files_are_rendered_by_one_command(tmp_path: Path) -> None:
    for name, result in every_result().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    out = tmp_path / "page.md"
    done = report("--render", "--results", str(tmp_path), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    verdicts = [goal["met"] for goal in json.loads(done.stdout)["goals"]]
    assert True in verdicts
    assert False in verdicts
    assert out.read_text(encoding="utf-8").startswith("# Benchmarks\n")


def refused_rendering(results: Path) -> str:
    """What is said of results that cannot be rendered; no page is left."""
    page = results / "page.md"
    done = report("--render", "--results", str(results), "--out", str(page))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not page.exists()
    return done.stderr


def test_a_result_that_lacks_a_field_is_named(tmp_path: Path) -> None:
    results = every_result()
    del results["export"]["results"]["ranks"]["one"]
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    said = refused_rendering(tmp_path)
    assert "export: its result is of another form (KeyError('one'))" in said
    assert "--only export --again" in said


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("{")
    said = refused_rendering(tmp_path)
    assert "export.json: is no JSON" in said
    assert "measure again" in said
