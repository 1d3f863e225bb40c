"""The study's plots: loss against tokens, loss against the window, the learned age bias."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.paper.study import Table
from molkv_model.weight_files import write_whole

if TYPE_CHECKING:
    from benchmarks.paper.report import Group

__all__ = ["age_bias_plot", "save", "tokens_plot", "window_plot"]

Draw = Callable[[Any], None]
_INCHES = (7.0, 4.2)


def save(draw: Draw, file: Path) -> None:
    """Draw into an SVG that is the same, byte for byte, for the same results."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "molkv", "svg.fonttype": "none", "font.size": 9.0}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        draw(figure.add_subplot())
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            file,
            lambda temporary: figure.savefig(temporary, format="svg", metadata={"Date": None}),
        )


def tokens_plot(table: Table, groups: Mapping[str, Group]) -> Draw:
    """How far each row is below the table's first, over tokens: means over common seeds."""

    def draw(axes: Any) -> None:
        known = [groups[name] for name in table.rows if name in groups]
        for group in known:
            seeds = group.seeds & known[0].seeds
            if not seeds:
                continue
            base = _curve(known[0], seeds)
            curve = {tokens: base[tokens] - loss for tokens, loss in _curve(group, seeds).items()}
            millions = [tokens / 1e6 for tokens in curve]
            axes.plot(millions, list(curve.values()), marker="o", label=group.first.title)
        axes.set_xlabel("million training tokens")
        axes.set_ylabel(f"nats below {known[0].first.title}")
        axes.grid(alpha=0.3)
        axes.legend()

    return draw


def window_plot(table: Table, groups: Mapping[str, Group]) -> Draw:
    """Validation loss over the window W, of seed 0."""

    def draw(axes: Any) -> None:
        points = sorted(
            (groups[name].first.model["expert_window"], groups[name].of_seed(0))
            for name in table.rows
            if name in groups
        )
        axes.plot([window for window, _ in points], [loss for _, loss in points], marker="o")
        axes.set_xscale("log", base=2)
        axes.set_xlabel("window W, tokens")
        axes.set_ylabel("validation loss, nats a token")
        axes.grid(alpha=0.3)

    return draw


def age_bias_plot(group: Group) -> Draw:
    """The age bias after training, of the first seed, for each layer."""

    def draw(axes: Any) -> None:
        biases = group.first.age_bias or []
        for layer, bias in enumerate(biases):
            axes.plot(range(len(bias)), bias, marker=".", label=f"layer {layer}")
        axes.set_xlabel("age: tokens back")
        axes.set_ylabel("age bias, mean over heads and experts")
        axes.grid(alpha=0.3)
        axes.legend()

    return draw


def _curve(group: Group, seeds: set[int]) -> dict[int, float]:
    """Mean validation loss by tokens."""
    results = [result for result in group.results if result.seed in seeds]
    curves = [{int(tokens): loss for tokens, loss in result.curve} for result in results]
    return {tokens: statistics.fmean(curve[tokens] for curve in curves) for tokens in curves[0]}
