"""The study's tables, plots and verdict follow from its results, and docs/paper.md has them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks.paper.errors import StudyError
from benchmarks.paper.execute import training_config
from benchmarks.paper.plots import tokens_plot
from benchmarks.paper.report import (
    DOCUMENTS,
    IMAGES,
    PLOTS,
    Group,
    grouped,
    render_document,
    render_leads,
    render_plots,
    render_table,
    render_verdict,
    verdict,
)
from benchmarks.paper.results import RESULTS, Result, read_results
from benchmarks.paper.study import ROWS, TABLES, Row, Run, Table
from molkv_model.training_config import DECISIVE


@pytest.fixture
def result(row: Row) -> Result:
    return Result(
        row="a", title="A", scale="test", seed=0, model=row.model.to_json(), training={},
        corpus="", tokens=100, validation_loss=4.0,
        curve=[[50, 4.5], [100, 4.0]], training_curve=[], stored_values=1536,
        bytes_per_token=1728, multiply_adds=435200,
        activated_parameters=341600, trained_parameters=669568, age_bias=[[1.0, 0.5], [0.0, 0.1]],
        machine="", seconds=1.0,
    )  # fmt: skip


def of(result: Result, row: str, seed: int, loss: float) -> Result:
    return dataclasses.replace(result, row=row, title=row.upper(), seed=seed, validation_loss=loss)


def test_a_table_has_means_spreads_and_differences_over_common_seeds(result: Result) -> None:
    results = [
        *(of(result, "a", seed, loss) for seed, loss in enumerate((4.0, 4.2, 4.4))),
        *(of(result, "b", seed, loss) for seed, loss in enumerate((3.9, 4.0, 4.4))),
        of(result, "c", 1, 4.3),
    ]
    rendered = render_table(Table("t", "", ("a", "missing", "b", "c")), grouped(results))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rendered.splitlines()[2:]]
    assert [row[:5] for row in rows] == [
        ["A", "`a`", "3", "4.2000 ± 0.2000", ""],
        ["B", "`b`", "3", "4.1000 ± 0.2646", "-0.1000"],
        ["C", "`c`", "1", "4.3000", "+0.1000"],
    ]
    assert rows[0][5:] == ["1,536", "1,728", "435,200", "341,600", "669,568"]


@pytest.mark.parametrize(
    ("molkv", "mole", "proven"),
    [
        ((4.0, 4.1, 4.1), (4.4, 4.5, 4.5), True),
        ((4.0, 4.1, 4.1), (4.1, 4.2, 4.2), False),
        ((4.0, 4.0, 4.0), (4.1, 4.9, 4.9), False),
        ((4.4, 4.5, 4.5), (4.0, 4.1, 4.1), False),
        ((4.0, 4.1), (4.4, 4.5), False),
        ((4.0, 4.1, 4.1), (4.4, 4.5), False),
        ((4.0,), (4.5,), False),
    ],
)
def test_a_lead_counts_when_it_is_more_than_twice_the_larger_spread(
    molkv: tuple[float, ...], mole: tuple[float, ...], proven: bool, result: Result
) -> None:
    groups = [
        Group([of(result, "a", seed, loss) for seed, loss in enumerate(losses)])
        for losses in (molkv, mole)
    ]
    assert verdict(*groups)[2] is proven
    sentence = render_verdict(*groups)
    assert (", more than twice" in sentence) is proven
    assert ("not proven" in sentence) is (min(len(molkv), len(mole)) < 3)
    row = render_leads([(groups[0], groups[1])]).splitlines()[2]
    assert row.endswith("| yes |" if proven else "| no |")


def test_a_verdict_tells_with_how_many_seeds_the_loss_is_lower(result: Result) -> None:
    molkv = Group([of(result, "a", seed, loss) for seed, loss in enumerate((4.0, 4.1, 4.6))])
    mole = Group([of(result, "b", seed, loss) for seed, loss in enumerate((4.2, 4.3, 4.5))])
    assert render_verdict(molkv, mole).endswith("; lower with 2 of 3.\n")


def test_where_the_loss_is_higher_a_verdict_tells_of_no_lead(result: Result) -> None:
    molkv = Group([of(result, "a", seed, 4.2 + seed / 10) for seed in range(3)])
    mole = Group([of(result, "b", seed, 4.1 + seed / 10) for seed in range(4)])
    expected = "A 4.3000 ± 0.1000, B 4.2000 ± 0.1000 nats a token: no lead.\n"
    assert render_verdict(molkv, mole) == expected
    cells = "4.3000 ± 0.1000 | 4.2000 ± 0.1000 | -0.1000 | 0 of 3 | no |"
    assert render_leads([(molkv, mole)]).splitlines()[2].endswith(cells)


def test_only_seeds_that_both_have_are_compared(result: Result) -> None:
    molkv = Group([of(result, "a", seed, 4.0 + seed / 10) for seed in range(4)])
    mole = Group([of(result, "b", seed, 4.5 + seed / 10) for seed in range(2, 6)])
    lead, _, proven = verdict(molkv, mole)
    assert lead == pytest.approx(0.5)
    assert not proven
    assert "A 4.2500 ± 0.0707, B 4.7500 ± 0.0707" in render_verdict(molkv, mole)
    with pytest.raises(StudyError, match="a and b: no seed in common"):
        verdict(molkv, Group([of(result, "b", 9, 4.0)]))


@pytest.mark.parametrize("change", [{"corpus": "other"}, {"training": {"tokens": 7}}])
def test_results_of_one_scale_that_cannot_be_compared_are_refused(
    change: dict[str, Any], result: Result
) -> None:
    first = dataclasses.replace(result, training={"tokens": 5, "seed": 0})
    second = dataclasses.replace(result, seed=1, training={"tokens": 5, "seed": 1})
    assert len(grouped([first, second])["a"].results) == 2
    other = dataclasses.replace(second, **change)
    with pytest.raises(StudyError, match=f"differ in {next(iter(change))}"):
        grouped([first, other])
    assert grouped([first, dataclasses.replace(other, scale="larger", row="b")])


def test_only_what_is_between_marks_is_rendered(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TABLES, "t", Table("t", "", ("a",)))
    text = "before\n<!-- table t -->\nold\n<!-- end -->\nafter\n"
    rendered = render_document(text, [result])
    assert rendered.startswith("before\n<!-- table t -->\n| model |")
    assert rendered.endswith("\n<!-- end -->\nafter\n")
    assert "| A | `a` | 1 | 4.0000 |" in rendered
    assert render_document(rendered, [result]) == rendered


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_a_document_says_what_the_results_in_the_repository_say(document: Path) -> None:
    text, results = document.read_text(encoding="utf-8"), read_results()
    assert render_document(text, results) == text
    worse = [
        dataclasses.replace(result, validation_loss=result.validation_loss + result.seed + 1)
        for result in results
    ]
    assert render_document(text, worse) != text


def test_the_plots_are_those_of_the_results_in_the_repository(tmp_path: Path) -> None:
    written = render_plots(read_results(), tmp_path)
    assert written
    assert {file.name for file in written} <= set(PLOTS)
    for file in written:
        assert file.read_bytes() == (IMAGES / file.name).read_bytes(), file.name
        assert f"images/{file.name}" in DOCUMENTS[0].read_text(encoding="utf-8")


def test_a_row_is_plotted_below_the_first_over_the_seeds_that_both_have(result: Result) -> None:
    def run(row: str, seed: int, loss: float) -> Result:
        return dataclasses.replace(of(result, row, seed, loss), curve=[[50, loss + 1], [100, loss]])

    groups = grouped([run("a", 0, 4.0), run("a", 1, 9.0), run("b", 0, 3.7), run("c", 2, 3.0)])
    axes = Figure().add_subplot()
    tokens_plot(Table("t", "", ("a", "b", "c")), groups)(axes)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines == {"A": [0.0, 0.0], "B": pytest.approx([0.3, 0.3])}


def test_results_are_of_rows_as_they_are_defined_today(tmp_path: Path) -> None:
    for result in read_results():
        row = ROWS[result.row]
        assert result.model == row.model.to_json(), result.row
        assert (result.scale, result.title) == (row.scale.name, row.title)
        settings = training_config(Run(row, result.seed), tmp_path, tmp_path)
        assert result.training == {name: getattr(settings, name) for name in DECISIVE}
        assert (RESULTS / f"{result.row}-seed{result.seed}.json").is_file()


def test_every_command_of_the_document_names_rows_that_are_there() -> None:
    commands = re.findall(
        r"benchmarks\.paper train ([\w -]+)", DOCUMENTS[0].read_text(encoding="utf-8")
    )
    assert commands
    for words in commands:
        for word in words.split("--")[0].split():
            assert word in ROWS or word.isupper(), word
