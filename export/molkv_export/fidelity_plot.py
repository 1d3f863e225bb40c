"""A plot of size against KL divergence; needs matplotlib, which is an extra."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from molkv_export.errors import ExportError
from molkv_export.fidelity import Fidelity, pareto_front
from molkv_runtime.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_plot_file", "plot_fidelity"]

SUFFIXES = (".svg", ".png")

_MIB = 1 << 20
# Less than float32's own error; a logarithmic axis has no zero.
_LEAST_NATS = 1e-9
_MARKERS = "osD^vP"
_INCHES = (9.0, 6.0)
_LABEL_POINTS = 7.5


def check_plot_file(file: Path) -> None:
    """Check before any work that a plot can be drawn.

    Raises:
        UsageError: the file's name has another ending than ``.svg`` or ``.png``, or its folder is
            missing.
        ExportError: matplotlib is not installed.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{file}: plots are written as {' or '.join(SUFFIXES)}", fix="choose such a name"
        )
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file}: its folder does not exist", fix="make the folder")
    if importlib.util.find_spec("matplotlib") is None:
        raise ExportError(
            "plots need the package matplotlib, which is not installed",
            fix="pip install 'molkv[plot]'",
        )


def plot_fidelity(results: Sequence[Fidelity], file: Path, title: str) -> None:
    """Draw size against KL divergence: a labelled marker each, the Pareto front joined.

    The same results give the same file, byte for byte, with one version of matplotlib.

    Args:
        results: each with a comparison.
        file: ``.svg`` or ``.png``; replaced.
        title: of the plot.

    Raises:
        UsageError: see `check_plot_file`, or the file cannot be written.
        ExportError: matplotlib is not installed.
    """
    check_plot_file(file)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "molkv", "svg.fonttype": "none", "font.size": 9.0}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, results)
        axes.set_title(title)
        # Without a date the file does not change when nothing else does.
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else {}
        try:
            figure.savefig(file, dpi=150, metadata=metadata)
        except OSError as error:
            raise UsageError(
                f"{file}: cannot be written: {error.strerror}", fix="choose another place"
            ) from None


def _draw(axes: Axes, results: Sequence[Fidelity]) -> None:
    axes.set_yscale("log")
    axes.set_xlabel("dense graph and expert blob, MiB")
    axes.set_ylabel("KL divergence from the trained model, nats a token")
    axes.grid(visible=True, which="major", alpha=0.3)
    front = pareto_front(results)
    points = [(_mebibytes(result), _nats(result)) for result in front]
    axes.plot(*zip(*points, strict=True), color="0.6", linewidth=1, zorder=1, label="Pareto front")
    markers = {
        name: _MARKERS[number % len(_MARKERS)]
        for number, name in enumerate(dict.fromkeys(r.combination.experts for r in results))
    }
    for result in results:
        nats = result.nats
        assert nats is not None  # noqa: S101 - every result has a comparison
        axes.errorbar(
            _mebibytes(result),
            _nats(result),
            yerr=nats.error if nats.error < nats.mean else None,
            marker=markers[result.combination.experts],
            color="C0" if result in front else "C7",
            capsize=2,
            linestyle="none",
            zorder=3 if result in front else 2,
        )
    _label(axes, results)
    axes.margins(x=0.15, y=0.08)
    axes.legend(loc="best", title="experts/dense/cache")


def _label(axes: Axes, results: Sequence[Fidelity]) -> None:
    """Names beside the markers; neighbours in size and divergence to either side by turns."""
    ordered = sorted(results, key=lambda result: (round(_mebibytes(result)), _nats(result)))
    for number, result in enumerate(ordered):
        left = number % 2 == 1
        axes.annotate(
            result.name,
            (_mebibytes(result), _nats(result)),
            xytext=(-7 if left else 7, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=_LABEL_POINTS,
        )


def _mebibytes(result: Fidelity) -> float:
    return result.footprint.total_bytes / _MIB


def _nats(result: Fidelity) -> float:
    assert result.nats is not None  # noqa: S101 - every result has a comparison
    return max(result.nats.mean, _LEAST_NATS)
