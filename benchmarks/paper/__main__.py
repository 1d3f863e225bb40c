"""The study of MoLKV against MoLE and dense, with equal values stored (docs/paper.md).

    python -m benchmarks.paper rows              list the rows
    python -m benchmarks.paper corpus ROW...     fetch and encode the text that rows need
    python -m benchmarks.paper train ROW...      train rows with all their seeds, or continue them
    python -m benchmarks.paper tables            print the tables of what was trained
    python -m benchmarks.paper documents         render docs/paper.md and README.md anew

A row whose results are in the folder of results is not trained again. Without a ROW, those of the
main comparison on one CPU core are meant. An interrupted run continues when it is repeated. Under
torchrun `train` is data-parallel; the corpus must be there already.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.paper.corpus import build_corpus
from benchmarks.paper.execute import execute
from benchmarks.paper.report import grouped, render_table, write_documents
from benchmarks.paper.results import RESULTS, Result, read_results
from benchmarks.paper.sources import SourceError
from benchmarks.paper.study import MAIN, ROWS, TABLES, Run
from molkv_model.errors import ModelError
from molkv_model.training_config import TrainingProgress

ROOT = Path(__file__).parents[2]
logger = logging.getLogger("benchmarks.paper")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["rows", "corpus", "train", "tables", "documents"])
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", help="these instead of each row's own")
    parser.add_argument("--corpus", type=Path, default=ROOT / "corpus" / "paper")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "paper")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "paper" / "results")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        parser.error(f"no row is called {', '.join(unknown)}; `rows` lists them")
    try:
        _run(arguments)
    except (ModelError, SourceError) as error:
        sys.exit(f"error: {error}")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "rows":
        for row in ROWS.values():
            print(f"{row.name:28} {row.title}")
        return
    if arguments.command == "tables":
        groups = grouped(read_results(arguments.results))
        for table in TABLES.values():
            if len(groups.keys() & set(table.rows)) > 1:
                print(f"{table.name}: {table.question}\n\n{render_table(table, groups)}")
        return
    if arguments.command == "documents":
        for file in write_documents():
            print(file)
        return
    for name in arguments.rows or MAIN:
        row = ROWS[name]
        vocabulary = row.model.vocab_size
        folder = arguments.corpus / str(vocabulary)
        if os.environ.get("WORLD_SIZE", "1") == "1":
            build_corpus(folder, arguments.corpus / "downloads", vocabulary)
        if arguments.command == "corpus":
            continue
        for seed in arguments.seeds or row.seeds:
            run = Run(row, seed)
            result = execute(run, folder, arguments.work, arguments.results, _reporter(run))
            if result is not None:
                kept = RESULTS / f"{run.name}.json"
                known = f", kept: {Result.read(kept).validation_loss:.4f}" if kept.is_file() else ""
                print(f"{run.name}: {result.validation_loss:.4f}{known}", flush=True)


def _reporter(run: Run) -> Callable[[TrainingProgress], None]:
    """Logs every evaluation."""

    def report(progress: TrainingProgress) -> None:
        if progress.validation_loss is not None:
            logger.info(
                "%s: step %d of %d, validation loss %.4f, %.0f tokens/s, %.0f minutes left",
                run.name,
                progress.step,
                progress.steps,
                progress.validation_loss,
                progress.tokens_per_s,
                progress.seconds_left / 60,
            )

    return report


if __name__ == "__main__":
    main()
