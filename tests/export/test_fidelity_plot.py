"""The plot of size against KL divergence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from molkv_export import ExportError
from molkv_export.divergence import Comparison, Estimate
from molkv_export.evaluate import Evaluation
from molkv_export.fidelity import Combination, Fidelity, Footprint
from molkv_export.fidelity_plot import check_plot_file, plot_fidelity
from molkv_runtime.errors import UsageError


def results() -> list[Fidelity]:
    made = []
    for size, nats, error in ((5, 0.01, 0.001), (9, 0.002, 0.1), (9, 0.0, float("inf"))):
        estimate = Estimate(nats, error, 100)
        combination = Combination("int8", "fp32", "fp32")
        evaluation = Evaluation(100, estimate, Comparison(estimate, estimate))
        name = f"int8/{size}/{nats}"
        made.append(Fidelity(name, combination, Footprint(size << 20, 0, 0), evaluation))
    return made


def test_the_same_results_give_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for file in files:
        plot_fidelity(results(), file, "tiny on a text")
    drawn = files[0].read_text(encoding="utf-8")
    assert files[1].read_text(encoding="utf-8") == drawn
    names = [result.name for result in results()]
    for words in (*names, "tiny on a text", "Pareto front"):
        assert f">{words}<" in drawn
    assert "nats a token" in drawn


def test_a_png_is_one(tmp_path: Path) -> None:
    plot_fidelity(results(), tmp_path / "plot.png", "tiny")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        check_plot_file(tmp_path / "plot.pdf")
    with pytest.raises(UsageError, match="folder does not exist"):
        check_plot_file(tmp_path / "missing" / "plot.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExportError, match="matplotlib, which is not installed") as raised:
        check_plot_file(tmp_path / "plot.svg")
    assert "molkv[plot]" in raised.value.fix
