"""Renders tables, plots and verdicts; docs/paper.md and README.md have them between marks."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.paper.errors import StudyError
from benchmarks.paper.plots import Draw, age_bias_plot, save, tokens_plot, window_plot
from benchmarks.paper.results import Result, read_results
from benchmarks.paper.study import SCALES, TABLES, Table
from molkv_model.weight_files import write_whole

__all__ = [
    "DOCUMENTS",
    "IMAGES",
    "PLOTS",
    "Group",
    "grouped",
    "render_document",
    "render_leads",
    "render_plots",
    "render_table",
    "render_verdict",
    "verdict",
    "write_documents",
]

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "docs" / "paper.md", ROOT / "README.md")
IMAGES = ROOT / "docs" / "images"
SEEDS_OF_A_PROOF = 3
_MARK = r"(<!-- {} ([\w -]+) -->\n).*?(<!-- end -->)"


@dataclass(frozen=True)
class Group:
    """The results of one row: the same model with one or several seeds."""

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """Whose model and costs are those of all."""
        return self.results[0]

    @property
    def mean(self) -> float:
        """Of the validation losses."""
        return statistics.fmean(result.validation_loss for result in self.results)

    @property
    def seeds(self) -> set[int]:
        """Of the results."""
        return {result.seed for result in self.results}

    def of_seed(self, seed: int) -> float:
        """The validation loss of one seed.

        Raises:
            KeyError: there is no such result.
        """
        return {result.seed: result.validation_loss for result in self.results}[seed]

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None with one seed."""
        losses = [result.validation_loss for result in self.results]
        return statistics.stdev(losses) if len(losses) > 1 else None


def grouped(results: Sequence[Result]) -> dict[str, Group]:
    """The results by row.

    Raises:
        StudyError: two results of a scale are of other text or settings, so that nothing follows
            from their difference.
    """
    firsts: dict[str, Result] = {}
    for result in results:
        first = firsts.setdefault(result.scale, result)
        if differing := [name for name, of in _SHARED.items() if of(result) != of(first)]:
            raise StudyError(
                f"{result.row}, seed {result.seed}, and {first.row}, seed {first.seed}: not "
                f"comparable, as they differ in {', '.join(differing)}",
                fix="remove the older result, and train its row again",
            )
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result.row, []).append(result)
    return {name: Group(sorted(found, key=lambda r: r.seed)) for name, found in rows.items()}


def _settings(result: Result) -> dict[str, Any]:
    return {name: value for name, value in result.training.items() if name != "seed"}


_SHARED: Mapping[str, Callable[[Result], object]] = {
    "corpus": lambda result: result.corpus,
    "training": _settings,
}
"""What all results of a scale have in common, so that only the models differ."""


def render_table(table: Table, groups: Mapping[str, Group]) -> str:
    """A table in Markdown; rows without results are left out."""
    lines = [
        "| model | row | seeds | validation loss | to the first | values stored | "
        "bytes a token | multiply-adds | activated | trained |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    known = [name for name in table.rows if name in groups]
    for name in known:
        group, base = groups[name], groups[known[0]]
        result = group.first
        both = group.seeds & base.seeds
        difference = ""
        if group is not base and both:
            apart = [group.of_seed(seed) - base.of_seed(seed) for seed in sorted(both)]
            difference = f"{statistics.fmean(apart):+.4f}"
        lines.append(
            f"| {result.title} | `{name}` | {len(group.results)} | {_loss(group)} | "
            f"{difference} | {result.stored_values:,} | {result.bytes_per_token:,} | "
            f"{result.multiply_adds:,} | {result.activated_parameters:,} | "
            f"{result.trained_parameters:,} |"
        )
    return "\n".join(lines) + "\n"


def _loss(group: Group) -> str:
    """The mean and, over several seeds, the spread."""
    spread = "" if group.spread is None else f" ± {group.spread:.4f}"
    return f"{group.mean:.4f}{spread}"


def _times_lower(molkv: Group, mole: Group) -> int:
    """With how many seeds the first is below the second."""
    return sum(result.validation_loss < mole.of_seed(result.seed) for result in molkv.results)


def verdict(molkv: Group, mole: Group) -> tuple[float, float, bool]:
    """MoLKV's lead, the larger spread of the two, and whether the lead is proven.

    It is if it exceeds twice the spread over three seeds or more. Only seeds that both have count.

    Raises:
        StudyError: there is no such seed.
    """
    molkv, mole = _of_common_seeds(molkv, mole)
    lead = mole.mean - molkv.mean
    spread = max(molkv.spread or 0.0, mole.spread or 0.0)
    proven = len(mole.results) >= SEEDS_OF_A_PROOF and lead > 2 * spread
    return lead, spread, proven


def _of_common_seeds(one: Group, other: Group) -> tuple[Group, Group]:
    """Both, with the results of the seeds that both have."""
    seeds = one.seeds & other.seeds
    if not seeds:
        raise StudyError(
            f"{one.first.row} and {other.first.row}: no seed in common, so nothing to compare",
            fix="train both with the same seeds",
        )
    first, second = (
        Group([result for result in group.results if result.seed in seeds])
        for group in (one, other)
    )
    return first, second


def render_verdict(molkv: Group, mole: Group) -> str:
    """A sentence that says whether the first leads the second."""
    molkv, mole = _of_common_seeds(molkv, mole)
    lead, spread, proven = verdict(molkv, mole)
    sides = [f"{group.first.title} {_loss(group)}" for group in (molkv, mole)]
    models = f"{', '.join(sides)} nats a token"
    if lead <= 0:
        return f"{models}: no lead.\n"
    count = len(mole.results)
    if count == 1:
        conclusion = "one seed alone, so its spread is unknown and the lead is not proven"
    elif count < SEEDS_OF_A_PROOF:
        conclusion = f"over {count} seeds, too few for a spread, so the lead is not proven"
    else:
        compared = "more" if proven else "not more"
        conclusion = (
            f"{compared} than twice the spread of {spread:.4f} over {count} seeds; "
            f"lower with {_times_lower(molkv, mole)} of {count}"
        )
    return f"{models}: a lead of {lead:.4f}, {conclusion}.\n"


def render_leads(pairs: Sequence[tuple[Group, Group]]) -> str:
    """A table in Markdown: how far the first of each pair is below the second."""
    lines = [
        "| scale | activated parameters | training tokens | bytes a token | MoLKV | MoLE | lead | "
        "seeds with lower loss | more than twice the spread |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for pair in pairs:
        molkv, mole = _of_common_seeds(*pair)
        lead, _, proven = verdict(molkv, mole)
        losses = " | ".join(_loss(group) for group in (molkv, mole))
        result = molkv.first
        lines.append(
            f"| `{result.scale}` | {result.activated_parameters / 1e6:.2f} M | "
            f"{result.tokens / 1e6:.1f} M | {result.bytes_per_token:,} | {losses} | {lead:.4f} | "
            f"{_times_lower(molkv, mole)} of {len(mole.results)} | {'yes' if proven else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def render_document(text: str, results: Sequence[Result]) -> str:
    """The document with every marked table, verdict and table of leads rendered anew.

    Raises:
        KeyError: a mark names no table.
    """
    groups = grouped(results)

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{render_table(TABLES[match[2]], groups)}{match[3]}"

    def sentence(match: re.Match[str]) -> str:
        names = match[2].split()
        return f"{match[1]}{render_verdict(*(groups[name] for name in names))}{match[3]}"

    def leads(match: re.Match[str]) -> str:
        found = [groups[name] for name in match[2].split()]
        pairs = list(zip(found[::2], found[1::2], strict=True))
        return f"{match[1]}{render_leads(pairs)}{match[3]}"

    text = re.sub(_MARK.format("table"), table, text, flags=re.DOTALL)
    text = re.sub(_MARK.format("leads"), leads, text, flags=re.DOTALL)
    return re.sub(_MARK.format("verdict"), sentence, text, flags=re.DOTALL)


def render_plots(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw every plot whose rows have results; the files written."""
    groups = grouped(results)
    written = []
    for name, plot in PLOTS.items():
        if all(row in groups for row in plot.needs):
            save(plot.draw(groups), folder / name)
            written.append(folder / name)
    return written


def write_documents() -> list[Path]:
    """Render the documents and their plots anew from the results kept here; the files written."""
    found = read_results()
    for file in DOCUMENTS:
        text = file.read_text(encoding="utf-8")
        rendered = render_document(text, found)
        write_whole(file, partial(Path.write_text, data=rendered, encoding="utf-8"))
    return [*DOCUMENTS, *render_plots(found, IMAGES)]


@dataclass(frozen=True)
class Plot:
    """A plot of the document.

    Attributes:
        needs: rows without whose results it is not drawn.
        draw: from the groups of results.
    """

    needs: Sequence[str]
    draw: Callable[[Mapping[str, Group]], Draw]


PLOTS: Mapping[str, Plot] = {
    **{
        f"paper-tokens-{scale}.svg": Plot(
            (f"{scale}-mole", f"{scale}-molkv"), partial(tokens_plot, TABLES[f"{scale}-main"])
        )
        for scale in SCALES
    },
    **{
        f"paper-window-{scale}.svg": Plot(
            (f"{scale}-window1", f"{scale}-molkv", f"{scale}-window64"),
            partial(window_plot, TABLES[f"{scale}-window"]),
        )
        for scale in SCALES
    },
    "paper-age-bias.svg": Plot(("tiny-molkv",), lambda groups: age_bias_plot(groups["tiny-molkv"])),
}
