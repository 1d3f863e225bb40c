"""`molkv export`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.progress import Progress, TaskID

from molkv_export.cli.console import facts_table, output_console, print_json, progress_bar, size
from molkv_export.cli.options import ExpertsOption, ForceOption, JsonOption, TokenizerOption
from molkv_export.cli.verify import print_verdict, verdict_json

if TYPE_CHECKING:
    from molkv_export.bundle import ExportProgress
    from molkv_export.plan import ExportPlan
    from molkv_runtime.bundle import Bundle
    from molkv_runtime.manifest import ParityEntry

__all__ = ["export", "export_json", "plan_table", "report_passes"]


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A folder in Hugging Face layout.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle folder to make.")],
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="onnx; repeatable.", show_default="onnx"),
    ] = None,
    experts: ExpertsOption = "int8",
    tokenizer: TokenizerOption = None,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a checkpoint into a bundle: dense graph, expert blob, golden cases, verdict.

    Example: molkv export checkpoint --out bundle --backend onnx --experts int8
    """
    from molkv_export.bundle import ExportConfig
    from molkv_export.bundle import export as run_export
    from molkv_export.plan import make_plan
    from molkv_model.checkpoint import Checkpoint

    backends = tuple(backend or ["onnx"])
    ExportConfig(checkpoint, out, backends, experts, tokenizer, force)
    plan = make_plan(Checkpoint(checkpoint), experts, tokenizer)
    if dry_run:
        if as_json:
            print_json({"out": str(out), **dataclasses.asdict(plan)})
        else:
            output_console().print(plan_table(plan))
        return
    with progress_bar() as bar:
        bundle = run_export(
            checkpoint,
            out,
            backends,
            experts,
            tokenizer=tokenizer,
            force=force,
            on_progress=report_passes(bar),
        )
    parity = bundle.manifest.parity
    assert parity is not None  # noqa: S101 - export always verifies; for the type checker
    if as_json:
        print_json(export_json(bundle, parity))
    else:
        output_console().print(plan_table(plan, title=f"Exported {out}"))
        print_verdict(parity)
    if not parity.passed:
        raise typer.Exit(1)


def export_json(bundle: Bundle, parity: ParityEntry) -> dict[str, Any]:
    """Where the bundle is, its files with their bytes, and the verdict."""
    files = {entry.name: entry.bytes for entry in bundle.manifest.files}
    return {"out": str(bundle.path), "files": files, **verdict_json(parity)}


def plan_table(plan: ExportPlan, title: str = "Plan") -> RenderableType:
    """The plan as a table."""
    about = {name: "about " if name in plan.estimated else "" for name in plan.files}
    facts = {name: about[name] + size(count) for name, count in plan.files.items()}
    facts |= {
        "dense parameters": f"{plan.dense_parameters:,}",
        "values in the expert table": f"{plan.expert_parameters:,}",
        "read for each new token": f"{plan.bytes_per_token:,} bytes, one row",
        "full expert window in RAM": size(plan.window_bytes),
        "export needs, about": size(plan.peak_memory_bytes),
    }
    return facts_table(title, facts)


def report_passes(bar: Progress) -> Callable[[ExportProgress], None]:
    """A callback that shows one task for each pass of an export."""
    tasks: dict[str, TaskID] = {}

    def report(progress: ExportProgress) -> None:
        if progress.name not in tasks:
            for task in tasks.values():
                bar.update(task, completed=bar.tasks[task].total)
            tasks[progress.name] = bar.add_task(progress.name, total=progress.total)
        bar.update(tasks[progress.name], completed=progress.done)

    return report
