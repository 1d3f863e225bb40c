"""What `molkv eval` found, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from molkv_export.cli.console import size
from molkv_export.divergence import BATCH, Estimate
from molkv_export.evaluate import Evaluation
from molkv_export.fidelity import Fidelity, as_json, evaluation_json, pareto_front

__all__ = ["Report", "shown_nats", "shown_percent"]

_TINY_NATS = 1e-4
_LEAST_WIDTHS = {"perplexity": 7, "KL divergence, nats": 8, "same top-1, %": 6, "read a token": 5}


@dataclass(frozen=True)
class Report:
    """The findings of one run.

    Attributes:
        text: name of the text's file.
        results: one for each bundle or combination.
        against: what they were compared with; None without a comparison.
        reference: its own evaluation on the text, where it is a checkpoint.
    """

    text: str
    results: Sequence[Fidelity]
    against: str | None = None
    reference: Evaluation | None = None

    def table(self) -> RenderableType:
        """A heading, a line for each result, and what the figures mean."""
        tokens = self.results[0].evaluation.tokens
        heading = f"{self.text}, {tokens:,} tokens scored"
        if self.reference is not None:
            heading += f"; {self.against} has perplexity {_perplexity(self.reference)}"
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        named = [str(result.combination) != result.name for result in self.results]
        texts = [*(["bundle"] if any(named) else []), "experts", "dense", "cache"]
        numbers = ["dense graph", "expert blob", "read a token", "perplexity"]
        if self.against is not None:
            numbers += ["KL divergence, nats", "same top-1, %", ""]
        for column in texts:
            table.add_column(column, overflow="fold")
        for column in numbers:
            # In a narrow terminal a figure goes on in the next line, and is never cut.
            table.add_column(column, justify="right", min_width=_LEAST_WIDTHS.get(column))
        front = pareto_front(self.results)
        for result in self.results:
            cells = [escape(result.name)] if any(named) else []
            table.add_row(*cells, *_cells(result, mark=result in front))
        notes = f"± is a standard error over batches of {BATCH} positions."
        if len(self.results) > 1 and self.against is not None:
            notes += " * no other is both smaller and closer."
        title = Text(heading, style="bold", overflow="fold")
        return Group(title, table, Text(notes, style="dim"))

    def json(self) -> dict[str, Any]:
        """The same facts for machines."""
        front = pareto_front(self.results)
        return {
            "text": self.text,
            "against": self.against,
            "reference": None if self.reference is None else evaluation_json(self.reference),
            "batch": BATCH,
            "results": [
                {**as_json(result), "pareto_front": result in front} for result in self.results
            ],
        }


def _cells(result: Fidelity, *, mark: bool) -> list[str]:
    combination, footprint = result.combination, result.footprint
    cells = [
        combination.experts or "-",
        combination.dense,
        combination.cache,
        size(footprint.dense_bytes),
        size(footprint.blob_bytes),
        f"{footprint.bytes_per_token:,} B",
        _perplexity(result.evaluation),
    ]
    if (comparison := result.evaluation.comparison) is not None:
        cells.append(shown_nats(comparison.kl_divergence))
        cells.append(shown_percent(comparison.same_top1))
        cells.append("*" if mark else "")
    return cells


def shown_nats(estimate: Estimate) -> str:
    """A KL divergence with its standard error; tiny ones in powers of ten."""
    if estimate.mean < _TINY_NATS:
        return f"{estimate.mean:.1e} ± {_error(estimate.error, '.1e')}"
    return f"{estimate.mean:.6f} ± {_error(estimate.error, '.6f')}"


def shown_percent(estimate: Estimate) -> str:
    """A share with its standard error, in percent."""
    return f"{100 * estimate.mean:.2f} ± {_error(100 * estimate.error, '.2f')}"


def _perplexity(evaluation: Evaluation) -> str:
    return f"{evaluation.perplexity:.3f} ± {_error(evaluation.perplexity_error, '.3f')}"


def _error(error: float, form: str) -> str:
    return format(error, form) if math.isfinite(error) else "?"
