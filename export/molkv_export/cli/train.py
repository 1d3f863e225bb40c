"""`molkv train`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer
from rich.progress import Progress, TaskID

from molkv_export.cli.console import (
    error_console,
    facts_table,
    output_console,
    print_json,
    progress_bar,
)
from molkv_export.cli.options import JsonOption
from molkv_model.config import ModelConfig, preset
from molkv_model.errors import ConfigError
from molkv_model.training_config import Precision, TrainingConfig

if TYPE_CHECKING:
    from molkv_model.training import TrainingProgress

__all__ = ["train"]


def train(
    text: Annotated[
        list[Path], typer.Option(metavar="FILE...", help="UTF-8 text; several files may follow.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The checkpoint folder to write.")],
    more_text: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", hidden=True, show_default=False)
    ] = None,
    preset_name: Annotated[str, typer.Option("--preset", help="tiny, small or 160m.")] = "tiny",
    architecture: Annotated[
        Literal["molkv", "mole", "dense"],
        typer.Option(help="The model, or one of its baselines of the same activated size."),
    ] = "molkv",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Override a config field, repeatable."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(help="Tokens to train on, in all.")
    ] = TrainingConfig.tokens,
    batch_tokens: Annotated[
        int, typer.Option(help="Tokens a step, over all ranks.")
    ] = TrainingConfig.batch_tokens,
    sequence_length: Annotated[
        int, typer.Option(help="Tokens a sequence.")
    ] = TrainingConfig.sequence_length,
    learning_rate: Annotated[
        float, typer.Option(help="The schedule's peak.")
    ] = TrainingConfig.learning_rate,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = TrainingConfig.seed,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A tokenizer.json.", show_default="trained on the text"),
    ] = None,
    precision: Annotated[
        Precision,
        typer.Option(help="Of matrix products; auto is bfloat16 on CUDA, float32 elsewhere."),
    ] = TrainingConfig.precision,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A checkpoint to score on the same held-out text for the model card, repeatable.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing run or checkpoint.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model from text. Under torchrun it is data-parallel with no other option.

    Example: molkv train --preset tiny --text corpus/*.txt --out checkpoint
    """
    from molkv_model.training import train as run_training

    files = (*text, *(more_text or ()))
    config = TrainingConfig(
        model=_model_config(preset_name, architecture, overrides or []),
        text=files,
        out=out,
        tokens=tokens,
        batch_tokens=batch_tokens,
        sequence_length=sequence_length,
        learning_rate=learning_rate,
        seed=seed,
        tokenizer=tokenizer,
        precision=precision,
        resume=resume,
        force=force,
        compare=tuple(compare or ()),
        command=_command_line(sys.argv[1:], files),
    )
    with _Reporter() as reporter:
        result = run_training(config, reporter)
    if os.environ.get("RANK", "0") != "0":
        return
    facts = {
        "checkpoint": str(result.out),
        "parameters": result.parameters,
        "tokens": result.tokens,
        "validation_loss": result.validation_loss,
    }
    if as_json:
        print_json(facts)
    else:
        shown = {
            "parameters": f"{result.parameters:,}",
            "tokens": f"{result.tokens:,}",
            "validation loss of the saved weights": f"{result.validation_loss:.4f} nats a token",
        }
        output_console().print(facts_table(f"Trained {result.out}", shown))


class _Reporter:
    """Shows progress: a line for each evaluation, and on a terminal a bar."""

    def __init__(self) -> None:
        self.console = error_console()
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar = progress_bar()
            self.bar.start()
            self.task = self.bar.add_task("training", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, progress: TrainingProgress) -> None:
        line = f"loss {progress.loss:.3f}, {progress.tokens_per_s:,.0f} tokens/s"
        if self.bar is not None:
            self.bar.update(
                self.task, completed=progress.step, total=progress.steps, description=line
            )
        if progress.validation_loss is not None:
            self.console.print(
                f"step {progress.step} of {progress.steps}: {line}, "
                f"validation loss {progress.validation_loss:.4f}, "
                f"{progress.seconds_left / 60:.0f} minutes left"
            )


def _command_line(arguments: Sequence[str], text: Sequence[Path]) -> str:
    """The command as it was typed, as far as a shell's expansion of a pattern can be undone.

    What has no influence on the numbers (--json, --resume, --force) is left out.
    """
    names = {str(path) for path in text}
    words = [word for word in arguments if word not in ("--json", "--resume", "--force")]
    typed = ["molkv"]
    for is_text, group in itertools.groupby(words, names.__contains__):
        run = list(group)
        pattern = _pattern(run) if is_text and len(run) > 1 else None
        typed += [pattern] if pattern else map(shlex.quote, run)
    return " ".join(typed)


def _pattern(files: Sequence[str]) -> str | None:
    """``folder/*.suffix`` if these are exactly the files that it stands for."""
    first = Path(files[0])
    folder, suffix = first.parent, first.suffix
    if sorted(map(Path, files)) != sorted(folder.glob(f"*{suffix}")):
        return None
    prefix = "" if folder == Path() else shlex.quote(str(folder)) + "/"
    return f"{prefix}*{suffix}"


def _model_config(preset_name: str, architecture: str, overrides: list[str]) -> ModelConfig:
    config = preset(preset_name)
    fields = {field.name: field for field in dataclasses.fields(config)}
    changes: dict[str, Any] = {}
    for override in overrides:
        name, separator, value = override.partition("=")
        if not separator or name not in fields:
            raise ConfigError(
                f"--set {override}: {name!r} is not a config field",
                fix=f"NAME=VALUE with one of {', '.join(fields)}",
            )
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    config = dataclasses.replace(config, **changes)
    if architecture == "dense":
        return config.without_experts()
    return config.as_mole() if architecture == "mole" else config
