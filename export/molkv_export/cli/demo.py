"""`molkv demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molkv_export.cli.console import output_console, print_json, progress_bar
from molkv_export.cli.export import ShownPasses, export_json, plan_table
from molkv_export.cli.options import ExpertsOption, ForceOption, JsonOption
from molkv_export.cli.run import checked_text, generation_json, stats_table, stream
from molkv_export.cli.verify import print_verdict
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session

__all__ = ["demo"]

DEFAULT_PROMPT = "The President of the United States"
DEFAULT_OUT = Path("demo-bundle")


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The bundle folder to make.",
            show_default=f"{DEFAULT_OUT}, made anew each time",
        ),
    ] = None,
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = DEFAULT_PROMPT,
    experts: ExpertsOption = "int8",
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 160,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export the tiny trained checkpoint that molkv brings, verify the bundle, generate from it.

    Example: molkv demo --prompt "Call me Ishmael."
    """
    from molkv_export.bundle import export
    from molkv_export.plan import make_plan
    from molkv_model.checkpoint import Checkpoint
    from molkv_model.embedded import tiny_checkpoint

    text, checkpoint, folder = checked_text(prompt), tiny_checkpoint(), out or DEFAULT_OUT
    with progress_bar() as bar:
        passes = ShownPasses(bar)
        bundle = export(
            checkpoint,
            folder,
            experts=experts,
            force=force or out is None,
            on_progress=passes.report,
        )
    parity = bundle.manifest.parity
    assert parity is not None  # noqa: S101 - export always verifies; for the type checker
    sampling = SamplingConfig(temperature=0.7, top_k=40, top_p=0.95)
    with Session(bundle) as session:
        tokens = session.generate(text, max_new_tokens=max_tokens, sampling=sampling)
        if as_json:
            generated = generation_json(tokens, session)
            print_json({**export_json(bundle, parity, passes.costs), "prompt": text, **generated})
        else:
            console, plan = output_console(), make_plan(Checkpoint(checkpoint), experts)
            title = f"Exported the embedded tiny checkpoint to {folder}"
            console.print(plan_table(plan, title=title))
            console.print("\n[bold]Generated, one expert row read from file for each token[/]")
            stream(tokens, text)
            console.print(stats_table(session))
            print_verdict(parity)
    if not parity.passed:
        raise typer.Exit(1)
