"""`molkv demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from molkv_export.cli.console import error_console, progress_bar
from molkv_export.cli.export import plan_table, report_passes
from molkv_export.cli.options import ExpertsOption
from molkv_export.cli.run import print_stats, stream
from molkv_export.cli.verify import print_verdict
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session

__all__ = ["demo"]

DEFAULT_PROMPT = "The President of the United States"


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The bundle folder to make.")] = Path(
        "demo-bundle"
    ),
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = DEFAULT_PROMPT,
    experts: ExpertsOption = "int8",
    max_tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=1)] = 160,
) -> None:
    """Export the tiny trained checkpoint that molkv brings, verify the bundle, generate from it.

    Example: molkv demo --prompt "Call me Ishmael."
    """
    from molkv_export.bundle import export
    from molkv_export.plan import make_plan
    from molkv_model.checkpoint import Checkpoint
    from molkv_model.embedded import tiny_checkpoint

    checkpoint, console = tiny_checkpoint(), error_console()
    with progress_bar() as bar:
        bundle = export(
            checkpoint, out, experts=experts, force=True, on_progress=report_passes(bar)
        )
    plan = make_plan(Checkpoint(checkpoint), experts)
    console.print(plan_table(plan, title=f"Exported the embedded tiny checkpoint to {out}"))
    console.rule("generating, one expert row read from file for each token")
    with Session(bundle) as session:
        sampling = SamplingConfig(temperature=0.7, top_k=40, top_p=0.95)
        stream(session.generate(prompt, max_new_tokens=max_tokens, sampling=sampling), prompt)
        print_stats(session)
    parity = bundle.manifest.parity
    assert parity is not None  # noqa: S101 - export always verifies; for the type checker
    print_verdict(parity)
    if not parity.passed:
        raise typer.Exit(1)
