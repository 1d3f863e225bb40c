"""The application: registers the commands and turns errors into messages and exit codes.

Exit codes: 0 done, 1 the answer is no (a verification failed), 2 wrong usage or bad input,
3 a defect of molkv, 130 interrupted, 141 the reader of the output went away.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.logging import RichHandler
from rich.markup import escape

from molkv_export.cli import bench, demo, evaluate, export, inspect, run, train, verify
from molkv_export.cli.console import (
    OutputError,
    discard_output,
    error_console,
    prepare_streams,
)
from molkv_model.errors import ModelError
from molkv_runtime.errors import MolkvError

__all__ = ["main"]

EXIT_BAD_INPUT = 2
EXIT_DEFECT = 3
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EXTRAS = {
    "torch": "export",
    "onnx": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    "ml_dtypes": "export",
    "matplotlib": "plot",
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
app.command("bench")(bench.bench)


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
        prepare_streams()
        _log_to_console()
        code = _run_command()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        sys.exit(EXIT_BROKEN_PIPE)
    except (MolkvError, ModelError) as error:
        if isinstance(error, OutputError):
            discard_output()
        _fail(error.problem, error.fix, EXIT_BAD_INPUT)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            _fail_by_defect(error)
        _fail(
            f"this command needs {error.name}, which is not installed",
            f"pip install 'molkv[{extra}]'",
            EXIT_BAD_INPUT,
        )
    except KeyboardInterrupt:
        _fail("interrupted", "", EXIT_INTERRUPTED)
    except OSError as error:
        _fail_by_system(error)
    except Exception as error:  # noqa: BLE001 - a message instead of a traceback
        _fail_by_defect(error)
    sys.exit(code)


def _run_command() -> int:
    try:
        app()
    except SystemExit as ended:
        # Typer ends with 1 when the reader of our output goes away, which would read as a verdict.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0


def _log_to_console() -> None:
    """Warnings of the library on standard error, beside a progress bar if there is one."""
    handler = RichHandler(console=error_console(), show_time=False, show_path=False)
    for package in ("molkv_export", "molkv_model", "molkv_runtime"):
        logger = logging.getLogger(package)
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        logger.propagate = False


def _fail_by_system(error: OSError) -> NoReturn:
    if error.filename is None:
        _fail_by_defect(error)
    _fail(f"{error.filename}: {error.strerror}", "check the path and its rights", EXIT_BAD_INPUT)


def _fail_by_defect(error: Exception) -> NoReturn:
    if os.environ.get("MOLKV_TRACEBACK"):
        raise error
    _fail(
        f"internal error: {type(error).__name__}: {error}",
        "please report it; MOLKV_TRACEBACK=1 shows where it arose",
        EXIT_DEFECT,
    )


def _fail(problem: str, fix: str, code: int) -> NoReturn:
    console = error_console()
    console.print(f"[bold red]error:[/] {escape(problem)}", soft_wrap=True)
    if fix:
        console.print(f"  [bold]fix:[/] {escape(fix)}", soft_wrap=True)
    sys.exit(code)
