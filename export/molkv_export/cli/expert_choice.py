"""`molkv export --experts auto`: how the choice is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from molkv_export.cli.console import progress_bar
from molkv_export.cli.fidelity_table import shown_nats, shown_percent
from molkv_export.expert_choice import MAX_KL, ExpertChoice, ExpertTrial, choose_experts
from molkv_export.fidelity import estimate_json

__all__ = ["choice_json", "choice_table", "choose"]


def choose(
    checkpoint: Path, text: str, max_kl: float | None, tokenizer: Path | None
) -> ExpertChoice:
    """Choose the precision of the expert rows, with a progress bar for each trial."""
    tasks: dict[str, TaskID] = {}
    with progress_bar() as bar:

        def on_tokens(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        limit = MAX_KL if max_kl is None else max_kl
        return choose_experts(
            checkpoint, text, max_kl=limit, tokenizer=tokenizer, on_tokens=on_tokens
        )


def choice_table(choice: ExpertChoice) -> RenderableType:
    """What was measured, and the choice."""
    table = Table()
    table.add_column("experts")
    for column in ("bytes of a row", "KL divergence, nats", "same top-1, %"):
        table.add_column(column, justify="right")
    for trial in choice.trials:
        table.add_row(trial.experts, f"{trial.row_bytes:,}", *_measured(trial))
    heading = (
        f"Experts: {choice.experts}, the smallest under {choice.max_kl:g} nats on "
        f"{choice.tokens:,} tokens"
    )
    return Group(Text(heading, style="bold", no_wrap=True, overflow="ignore"), table)


def choice_json(choice: ExpertChoice) -> dict[str, Any]:
    """The same facts for machines."""
    trials = []
    for trial in choice.trials:
        comparison = trial.comparison
        facts: dict[str, Any] = {"experts": trial.experts, "row_bytes": trial.row_bytes}
        for name in ("kl_divergence", "same_top1"):
            estimate = None if comparison is None else getattr(comparison, name)
            facts |= estimate_json(name, estimate)
        trials.append({**facts, "problem": trial.problem or None})
    return {
        "chosen": choice.experts,
        "max_kl": choice.max_kl,
        "tokens": choice.tokens,
        "trials": trials,
    }


def _measured(trial: ExpertTrial) -> tuple[str, str]:
    if trial.comparison is None:
        return escape(trial.problem), ""
    nats, same = trial.comparison.kl_divergence, trial.comparison.same_top1
    return shown_nats(nats), shown_percent(same)
