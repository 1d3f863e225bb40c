"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from molkv_export.embedding_place import EmbeddingPlace
from molkv_runtime.errors import UsageError
from molkv_runtime.experts_mode import RESIDENT_BYTES, ExpertsMode
from molkv_runtime.row_geometry import ExpertPrecision

__all__ = [
    "BackendOption",
    "BundleArgument",
    "CacheOption",
    "DenseOption",
    "EmbeddingOption",
    "EngineOption",
    "ExpertsModeOption",
    "ExpertsOption",
    "ExpertsOrAutoOption",
    "ForceOption",
    "JsonOption",
    "ThreadsOption",
    "TokenizerOption",
    "read_text",
]

MOST_THREADS = 1024
"""More than any machine has cores; an engine would try to start whatever number it is told."""

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder that `molkv export` wrote.")
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Whose dense graph to run.", show_default="onnx, if it is there"
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead, for machines.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Threads of the graph engine.",
        min=1,
        max=MOST_THREADS,
        show_default="one for a narrow model, else all cores",
    ),
]
EngineOption = Annotated[
    Literal["native", "reference"],
    typer.Option(
        help="What runs beside the graph: the C++ core that phones run, or the NumPy reference."
    ),
]
ExpertsModeOption = Annotated[
    ExpertsMode,
    typer.Option(
        help="Where expert rows are: read from storage as they are needed, resident in memory, or "
        f"auto: resident up to {RESIDENT_BYTES >> 20} MiB."
    ),
]
TokenizerOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A tokenizer.json.", show_default="the checkpoint's"),
]
ExpertsOption = Annotated[ExpertPrecision, typer.Option(help="Precision of the expert rows.")]
ExpertsOrAutoOption = Annotated[
    Literal[ExpertPrecision, "auto"],
    typer.Option(
        help="Precision of the expert rows; auto takes the smallest that stays under --max-kl on "
        "the --calibration text."
    ),
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Precision of the self-attention cache: fp32 or, for onnx, int8.",
        show_default="fp32; coreml fp16",
    ),
]
EmbeddingOption = Annotated[
    EmbeddingPlace,
    typer.Option(
        help="Where the input embedding goes: into the dense graph, or to storage, as a part of "
        "every token's row, so that an embedding that is not tied leaves memory."
    ),
]
DenseOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[BACKEND=]NAME",
        help="Precision of the dense weights: int8, int4, fp32 (onnx, executorch), fp16, "
        "palettized4 (coreml). Repeat with BACKEND= for several backends.",
        show_default="fp32; coreml fp16",
    ),
]


def read_text(file: Path) -> str:
    """A file that an option names.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: byte {error.start} is not UTF-8", fix="convert the file to UTF-8"
        ) from None
