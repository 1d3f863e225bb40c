"""Goals are judged by the worst figure, and never without one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.report.goals import Goal, goals
from tests.benchmarks.results import every_result

Results = dict[str, dict[str, Any]]


def goal(results: Results, claim: str) -> Goal:
    (found,) = [each for each in goals(results) if claim in each.claim]
    return found


def test_without_results_nothing_is_met_or_missed() -> None:
    judged = goals({})
    assert judged
    assert {each.met for each in judged} == {None}
    assert {each.verdict for each in judged} == {"not measured"}
    assert {each.claim for each in judged} == {each.claim for each in goals(every_result())}


def test_every_goal_is_measured_by_some_benchmark() -> None:
    results = every_result()
    for each in goals(results):
        assert each.met is not None, each.claim
        without = {name: found for name, found in results.items() if name != each.source}
        assert goal(without, each.claim).met is None


LAST = ("experts-cost", "results", 1)
EXPORT = ("export", "results")
PEERS_4, PEERS_8 = ("peers-4", "ratios"), ("peers-8", "ratios")
INT8, INT4 = ("fidelity", "results", 0), ("fidelity", "results", 1)
BOUNDS: list[tuple[str, tuple[str | int, ...], float, float]] = [
    ("cache warm, over", (*LAST, "ratio", "warm"), 0.97, 0.9699),
    ("cache cold, over", (*LAST, "ratio", "cold"), 0.93, 0.9299),
    ("Lookup", (*LAST, "lookup_s", "warm"), 0.000179, 0.000181),
    ("and the window", (*LAST, "memory", "warm", "peak_bytes"), 352e6, 352.1e6),
    ("torch eager", (*LAST, "eager_s"), 0.0181, 0.0179),
    ("longest context", (*LAST, "step_s", "warm"), 0.0071, 0.0073),
    ("More lookup", ("blob-size", "results", 1, "lookup_s", "warm"), 0.00013, 0.00015),
    ("Prefill at 4 bits", (*PEERS_4, 0, "ratio"), 1.0, 0.99),
    (
        "4 bits, experts from storage, context 64,",
        (*PEERS_4, 1, "ratio"),
        1.2,
        1.19,
    ),
    (
        "4 bits, experts from storage, context 1024",
        (*PEERS_4, 2, "ratio"),
        1.8,
        1.79,
    ),
    ("Prefill at 8 bits", (*PEERS_8, 0, "ratio"), 1.0, 0.99),
    (
        "8 bits, experts from storage, context 64,",
        (*PEERS_8, 1, "ratio"),
        1.0,
        0.99,
    ),
    (
        "8 bits, experts from storage, context 1024",
        (*PEERS_8, 2, "ratio"),
        1.0,
        0.99,
    ),
    ("matrix products", (*EXPORT, "compute", 0, "share"), 0.7, 0.69),
    ("beyond the checkpoint", (*EXPORT, "memory", "peak_bytes", "onnx"), 1724 << 20, 1725 << 20),
    ("torchrun", (*EXPORT, "ranks", "ratio"), 1.7, 1.69),
    ("Opening", (*EXPORT, "open", 0, "native_us"), 999.0, 1001.0),
    ("of int8 experts", (*INT8, "kl_divergence"), 0.001, 0.0011),
    ("of int4 experts", (*INT4, "kl_divergence"), 0.02, 0.0201),
    ("Same best token", (*INT4, "same_top1"), 0.97, 0.969),
]


def with_figure(path: tuple[str | int, ...], value: float) -> Results:
    results: Any = every_result()
    place = results
    for key in path[:-1]:
        place = place[key]
    assert isinstance(place[path[-1]], float | int)
    place[path[-1]] = value
    return results  # type: ignore[no-any-return]


@pytest.mark.parametrize(("claim", "path", "allowed", "forbidden"), BOUNDS)
def test_a_goal_is_met_up_to_its_bound_and_missed_beyond(
    claim: str, path: tuple[str | int, ...], allowed: float, forbidden: float
) -> None:
    assert goal(with_figure(path, allowed), claim).met is True
    assert goal(with_figure(path, forbidden), claim).met is False


def test_every_goal_has_its_bound_tested() -> None:
    tested = {goal(every_result(), claim).claim for claim, *_ in BOUNDS}
    assert tested == {each.claim for each in goals({})}


def test_the_worst_figure_is_named() -> None:
    results = with_figure((*LAST, "lookup_s", "warm"), 0.001)
    assert goal(results, "Lookup").where == "int4, cache int8, context 1024"
    assert goal(results, "Lookup").verdict == "**missed**"
    found = goal(results, "Prefill at 4")
    assert found.where == "1000 against 667 tokens/s of llama.cpp (4 bits, cache f16)"
