"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "BundleArgument",
    "ExpertsOption",
    "ForceOption",
    "JsonOption",
    "ThreadsOption",
    "TokenizerOption",
]

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `molkv export` wrote.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")]
ThreadsOption = Annotated[
    int | None, typer.Option(help="Threads of the graph engine.", min=1, show_default="all cores")
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A tokenizer.json.", show_default="the checkpoint's"),
]
ExpertsOption = Annotated[
    Literal["int8", "f16"], typer.Option(help="Precision of the expert rows.")
]
