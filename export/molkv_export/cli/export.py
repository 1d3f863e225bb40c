"""`molkv export`."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from molkv_export.cli.console import facts_table, output_console, print_json, progress_bar, size
from molkv_export.cli.options import (
    CacheOption,
    DenseOption,
    EmbeddingOption,
    ExpertsOrAutoOption,
    ForceOption,
    JsonOption,
    TokenizerOption,
    read_text,
)
from molkv_export.cli.verify import print_verdict, verdict_json
from molkv_runtime.errors import UsageError

if TYPE_CHECKING:
    from molkv_export.bundle import ExportProgress
    from molkv_export.pass_costs import PassCost
    from molkv_export.plan import ExportPlan
    from molkv_runtime.bundle import Bundle
    from molkv_runtime.manifest import ParityEntry

__all__ = [
    "ShownPasses",
    "export",
    "export_json",
    "parse_precisions",
    "parse_size",
    "plan_table",
]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A folder in Hugging Face layout.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle folder to make.")],
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="onnx, executorch or coreml; repeatable.", show_default="onnx"
        ),
    ] = None,
    experts: ExpertsOrAutoOption = "int8",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="UTF-8 text for --experts auto, of the model's kind."),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="The most KL divergence a token that --experts auto accepts.",
            show_default="0.01",
        ),
    ] = None,
    embedding: EmbeddingOption = "graph",
    dense: DenseOption = None,
    cache: CacheOption = None,
    tokenizer: TokenizerOption = None,
    shard_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Cut the expert blob into files of at most this size, such as 2GB or 512MiB.",
            show_default="one file",
        ),
    ] = None,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a checkpoint into a bundle: dense graph, expert blob, golden cases, verdict.

    An export that was interrupted continues when it is repeated. Under torchrun the ranks divide
    the work with no other option.

    Example: molkv export checkpoint --out bundle --backend onnx --experts int8

    Example: molkv export checkpoint --out bundle --experts auto --calibration text.txt
    """
    from molkv_export.bundle import ExportConfig
    from molkv_export.bundle import export as run_export
    from molkv_export.cli.expert_choice import choice_json, choice_table, choose
    from molkv_export.output_folder import require_replaceable
    from molkv_export.plan import make_plan
    from molkv_model.checkpoint import Checkpoint

    backends = tuple(backend or ["onnx"])
    precision = "int8" if experts == "auto" else experts
    config = ExportConfig(
        checkpoint,
        out,
        backends,
        precision,
        tokenizer,
        force,
        parse_precisions(dense),
        cache,
        parse_size(shard_size),
        embedding,
    )
    text = _calibration_text(experts, calibration, max_kl)
    choice = None
    if text is not None:
        if not dry_run:
            require_replaceable(out, force=force)
        choice = choose(checkpoint, text, max_kl, tokenizer)
        precision = choice.experts
    chosen = {} if choice is None else {"experts": choice_json(choice)}
    plan = make_plan(
        Checkpoint(checkpoint),
        precision,
        tokenizer,
        precisions=config.precisions,
        caches=config.caches,
        shard_size=config.shard_size,
        embedding=embedding,
    )
    first = os.environ.get("RANK", "0") == "0"
    if dry_run and not first:
        return
    if dry_run:
        if as_json:
            print_json({"out": str(out), **dataclasses.asdict(plan), **chosen})
        else:
            if choice is not None:
                output_console().print(choice_table(choice))
            output_console().print(plan_table(plan))
        return
    with progress_bar() as bar:
        passes = ShownPasses(bar)
        bundle = run_export(
            checkpoint,
            out,
            backends,
            precision,
            tokenizer=tokenizer,
            force=force,
            dense=config.precisions,
            cache=cache,
            shard_size=config.shard_size,
            embedding=embedding,
            choice=choice,
            on_progress=passes.report,
        )
    parity = bundle.manifest.parity
    assert parity is not None  # noqa: S101 - export always verifies; for the type checker
    if not first:
        return
    if as_json:
        print_json({**export_json(bundle, parity, passes.costs), **chosen})
    else:
        console = output_console()
        if choice is not None:
            console.print(choice_table(choice))
        console.print(plan_table(plan, title=f"Exported {out}"))
        console.print(passes.table())
        print_verdict(parity)
    if not parity.passed:
        raise typer.Exit(1)


def _calibration_text(experts: str, file: Path | None, max_kl: float | None) -> str | None:
    """The text to choose the experts' precision by; None where it is given.

    Raises:
        UsageError: options are missing or mean nothing here, or the file cannot be read.
    """
    if experts == "auto":
        if file is None:
            raise UsageError(
                "--experts auto needs a text to measure on", fix="name one with --calibration"
            )
        return read_text(file)
    for name, value in (("--calibration", file), ("--max-kl", max_kl)):
        if value is not None:
            raise UsageError(
                f"{name} is given, but --experts is {experts}",
                fix="leave it out, or let molkv choose with --experts auto",
            )
    return None


def parse_precisions(given: list[str] | None) -> str | dict[str, str] | None:
    """What ``--dense`` means: one precision for all backends, or one for each that is named.

    Raises:
        UsageError: both, or one backend twice.
    """
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    named = {backend: precision for backend, equals, precision in pairs if equals}
    if not named and len(given) == 1:
        return given[0]
    if len(named) < len(given):
        raise UsageError(
            f"--dense is {' and '.join(given)}",
            fix="give one precision for all, or BACKEND=PRECISION once for each backend",
        )
    return named


def parse_size(text: str | None) -> int | None:
    """Bytes of a size such as 2GB, 1.5GiB or 4000000.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise UsageError(
            f"--shard-size is {text!r}",
            fix="give bytes, or a number with KB, MB, GB, KiB, MiB or GiB, such as 2GB",
        )
    number, unit = found.groups()
    return int(float(number) * _UNITS[(unit or "").upper()])


def export_json(
    bundle: Bundle, parity: ParityEntry, costs: Mapping[str, PassCost]
) -> dict[str, Any]:
    """Where the bundle is, its files with their bytes, what each pass took, and the verdict."""
    files = {entry.name: entry.bytes for entry in bundle.manifest.files}
    passes = [{"name": name, **dataclasses.asdict(cost)} for name, cost in costs.items()]
    return {"out": str(bundle.path), "files": files, "passes": passes, **verdict_json(parity)}


def plan_table(plan: ExportPlan, title: str = "Plan") -> RenderableType:
    """The plan as a table."""
    about = {name: "about " if name in plan.estimated else "" for name in plan.files}
    facts = {name: about[name] + size(count) for name, count in plan.files.items()}
    facts |= {
        "dense parameters": f"{plan.dense_parameters:,}",
        "values in the expert table": f"{plan.expert_parameters:,}",
        "read for each new token": f"{plan.bytes_per_token:,} bytes, one row",
        **_embedding_facts(plan),
        "full expert window in RAM": size(plan.window_bytes),
        "export needs, about": size(plan.peak_memory_bytes),
    }
    return facts_table(title, facts)


def _embedding_facts(plan: ExportPlan) -> dict[str, str]:
    """What the input embedding on storage costs and saves; nothing where the graphs have it."""
    if plan.embedding == "graph":
        return {}
    saved = ", ".join(
        f"{size(count)} ({name}{'' if count else ', where it is the head'})"
        for name, count in plan.embedding_saved_bytes.items()
    )
    return {
        "input embedding in each row adds": f"{plan.embedding_bytes_per_token:,} bytes to a read",
        "and leaves the dense graph, about": saved,
    }


class ShownPasses:
    """One progress task for each pass of an export, and what each of them took.

    Args:
        bar: where the tasks are shown.

    Attributes:
        costs: of the passes that are done, by name.
    """

    def __init__(self, bar: Progress) -> None:
        self.costs: dict[str, PassCost] = {}
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def report(self, progress: ExportProgress) -> None:
        """What an export is to call."""
        if progress.name not in self._tasks:
            self._tasks[progress.name] = self._bar.add_task(progress.name, total=progress.total)
        self._bar.update(self._tasks[progress.name], completed=progress.done)
        if progress.cost is not None:
            self.costs[progress.name] = progress.cost

    def table(self) -> RenderableType:
        """Seconds and peak memory of every pass."""
        table = Table(title="Passes", title_justify="left", title_style="bold")
        for column in ("pass", "seconds", "peak memory"):
            table.add_column(column, justify="left" if column == "pass" else "right")
        for name, cost in self.costs.items():
            table.add_row(escape(name), f"{cost.seconds:.1f}", size(cost.peak_memory_bytes))
        return table
