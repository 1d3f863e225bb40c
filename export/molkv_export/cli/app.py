"""The application: registers the commands and turns errors into messages and exit codes.

Exit codes: 0 done, 1 the answer is no (a verification failed), 2 wrong usage or bad input,
3 a defect of molkv, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from molkv_export.cli import demo, evaluate, export, inspect, run, train, verify
from molkv_export.cli.console import error_console
from molkv_model.errors import ModelError
from molkv_runtime.errors import MolkvError

__all__ = ["main"]

EXIT_BAD_INPUT = 2
EXIT_DEFECT = 3
EXIT_INTERRUPTED = 130

_EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "safetensors": "export",
    "ml_dtypes": "export",
}

app = typer.Typer(
    name="molkv",
    help="Takes MoLKV language models to phones: train, export, verify, run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("export")(export.export)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("run")(run.run)
app.command("eval")(evaluate.evaluate)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        sys.stdout.write(f"molkv {installed_version('molkv')}\n")
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except (MolkvError, ModelError) as error:
        _fail(error.problem, error.fix, EXIT_BAD_INPUT)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _fail(
            f"this command needs {error.name}, which is not installed",
            f"pip install 'molkv[{extra}]'",
            EXIT_BAD_INPUT,
        )
    except KeyboardInterrupt:
        _fail("interrupted", "", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away; its closing must not print an error either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BAD_INPUT)
    except Exception as error:
        if os.environ.get("MOLKV_TRACEBACK"):
            raise
        _fail(
            f"internal error: {type(error).__name__}: {error}",
            "please report it; MOLKV_TRACEBACK=1 shows where it arose",
            EXIT_DEFECT,
        )


def _fail(problem: str, fix: str, code: int) -> None:
    console = error_console()
    console.print(f"[bold red]error:[/] {_plain(problem)}", soft_wrap=True)
    if fix:
        console.print(f"  [bold]fix:[/] {_plain(fix)}", soft_wrap=True)
    sys.exit(code)


def _plain(text: str) -> str:
    """Text with brackets that are not markup."""
    return text.replace("[", r"\[")
