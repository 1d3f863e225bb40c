"""Plots of what tables show badly; needs matplotlib, which is an extra."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "draw"]

Record = dict[str, Any]
_SETTINGS = {"svg.hashsalt": "molkv", "svg.fonttype": "none", "font.size": 9.0}
_WIDTH = 9.0
_OURS, _PEERS = ("#1b5e8c", "#5aa2cf"), ("#b0572a", "#e0a070")


def draw(name: str, document: Record, file: Path) -> None:
    """Draw a result as ``.svg``; the same result gives the same bytes with one matplotlib.

    Args:
        name: of a plot.
        document: the benchmark's result.
        file: replaced.
    """
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(layout="constrained")
        PLOTS[name](document, figure)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        figure.savefig(partial, format="svg", metadata={"Date": None})
        partial.replace(file)


def peers(document: Record, figure: Figure) -> None:
    """Bars of every variant, one panel a figure."""
    results = document["results"]
    speeds = [name for name in results[0] if name.endswith("_tokens_per_s")]
    figure.set_size_inches(_WIDTH, 0.9 + 0.27 * len(results))
    panels = figure.subplots(1, len(speeds), sharey=True)
    names = [
        f"{found['engine']}{' + experts' if found['experts'] else ''}, {found['cache']}"
        + (f", {found['block']}" if found["block"] else "")
        for found in results
    ]
    colors = [
        (_OURS if found["engine"] == "molkv" else _PEERS)[not found["experts"]] for found in results
    ]
    for axes, speed in zip(panels, speeds, strict=True):
        bars = axes.barh(range(len(results)), [found[speed] for found in results], color=colors)
        axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=7.5)
        axes.set_title(speed.removesuffix("_tokens_per_s").replace("decode_", "decode, context "))
        axes.set_xlabel("tokens/s")
        axes.margins(x=0.2)
        axes.set_yticks(range(len(results)), names)
    panels[0].invert_yaxis()


def experts_cost(document: Record, figure: Figure) -> None:
    """Bars of decode without experts, and with them, warm and cold."""
    results = document["results"]
    figure.set_size_inches(_WIDTH, 3.6)
    axes = figure.subplots()
    kinds = {"no experts": _PEERS[1], "warm": _OURS[0], "cold": _OURS[1]}
    width = 0.8 / len(kinds)
    for number, (kind, color) in enumerate(kinds.items()):
        places = [place + (number - 1) * width for place in range(len(results))]
        rates = [1 / found["step_s"][kind] for found in results]
        label = kind if kind == "no experts" else f"experts from storage, {kind}"
        bars = axes.bar(places, rates, width, color=color, label=label)
        axes.bar_label(bars, fmt="{:.0f}", padding=2, fontsize=7.5)
    names = [f"{f['dense']}, cache {f['cache']}\ncontext {f['context']}" for f in results]
    axes.set_xticks(range(len(results)), names, fontsize=7.5)
    axes.set_ylabel("decode, tokens/s")
    axes.legend()


def row_reads(document: Record, figure: Figure) -> None:
    """Rows a second by the number of readers, one panel a size, cold."""
    cold = [found for found in document["results"] if found["cold"]]
    sizes = sorted({found["row_bytes"] for found in cold})
    figure.set_size_inches(_WIDTH, 3.2)
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        found = [each for each in cold if each["row_bytes"] == size]
        readers = [each["readers"] for each in found]
        for name in ("molkv", "fio", "mmap", "mmap, random"):
            rates = [each["rows"] / each["seconds"][name] for each in found]
            axes.plot(readers, rates, marker="o", markersize=3, label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(f"{size >> 10} KiB, cold")
        axes.set_xlabel("readers")
    panels[0].set_ylabel("rows/s")
    panels[0].legend(fontsize=7.5)


PLOTS: dict[str, Callable[[Record, Figure], None]] = {
    "peers": peers,
    "experts_cost": experts_cost,
    "row_reads": row_reads,
}
"""By the `benchmark` that a result says it is of."""
