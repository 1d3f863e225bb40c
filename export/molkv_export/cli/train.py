"""`molkv train`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer
from rich.progress import Progress, TaskID

from molkv_export.cli.console import error_console, facts_table, progress_bar
from molkv_export.cli.options import JsonOption
from molkv_model.config import ModelConfig, preset
from molkv_model.errors import ConfigError

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
    tokens: Annotated[int, typer.Option(help="Tokens to train on, in all.")] = 4_000_000,
    batch_tokens: Annotated[int, typer.Option(help="Tokens a step, over all ranks.")] = 2048,
    sequence_length: Annotated[int, typer.Option(help="Tokens a sequence.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="The schedule's peak.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A tokenizer.json.", show_default="trained on the text"),
    ] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Of matrix products; auto is bfloat16 on CUDA, float32 elsewhere."),
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model from text. Under torchrun it is data-parallel with no other option.

    Example: molkv train --preset tiny --text corpus/*.txt --out checkpoint
    """
    from molkv_model.training import TrainingConfig
    from molkv_model.training import train as run_training

    config = TrainingConfig(
        model=_model_config(preset_name, architecture, overrides or []),
        text=(*text, *(more_text or ())),
        out=out,
        tokens=tokens,
        batch_tokens=batch_tokens,
        sequence_length=sequence_length,
        learning_rate=learning_rate,
        seed=seed,
        tokenizer=tokenizer,
        precision=precision,
        resume=resume,
    )
    with _Reporter(as_json) as reporter:
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
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        shown = {name: f"{value:,}" for name, value in facts.items() if isinstance(value, int)}
        shown["validation_loss"] = f"{result.validation_loss:.4f} nats a token"
        error_console().print(facts_table(f"Trained {result.out}", shown))


class _Reporter:
    """Shows progress: a bar on a terminal, a line for each evaluation elsewhere, or JSON lines."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = error_console()
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def __enter__(self) -> Self:
        if not self.as_json and self.console.is_terminal:
            self.bar = progress_bar()
            self.bar.start()
            self.task = self.bar.add_task("training", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, progress: TrainingProgress) -> None:
        if self.as_json:
            sys.stdout.write(json.dumps(dataclasses.asdict(progress)) + "\n")
            sys.stdout.flush()
            return
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
