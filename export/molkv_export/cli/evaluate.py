"""`molkv eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molkv_export.cli.console import output_console, print_json, progress_bar
from molkv_export.cli.options import EngineOption, JsonOption, ThreadsOption, read_text
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import TokenizerError, UsageError
from molkv_runtime.manifest import MANIFEST_FILE, ModelEntry, read_manifest
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from molkv_export.cli.fidelity_table import Report
    from molkv_model.config import ModelConfig

__all__ = ["evaluate"]


def evaluate(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE]...", help="Folders that `molkv export` wrote."),
    ] = None,
    *,
    text: Annotated[Path, typer.Option(metavar="FILE", help="UTF-8 text to score.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead of bundles: export this checkpoint in every combination of --experts, "
            "--dense and --cache to a temporary folder, and compare each with it.",
        ),
    ] = None,
    experts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Precisions of the expert rows, such as f16,int8.",
            show_default="all of them",
        ),
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Precisions of the dense weights.", show_default="all of them"
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Precisions of the self-attention cache.",
            show_default="all of them",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A checkpoint or bundle to measure the bundles' distance to."
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Score this many tokens.", min=2, show_default="all")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw size against KL divergence, as .svg or .png.", dir_okay=False
        ),
    ] = None,
    engine: EngineOption = "native",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Perplexity of a text; beside a checkpoint also KL divergence and same-top-1; error bars.

    Example: molkv eval bundle --text speech.txt --against checkpoint

    Example: molkv eval --checkpoint checkpoint --text speech.txt --plot fidelity.svg
    """
    chosen = {"--experts": experts, "--dense": dense, "--cache": cache}
    if (checkpoint is None) == (not bundles):
        raise UsageError(
            f"{'nothing' if checkpoint is None else 'bundles and --checkpoint both'} to evaluate",
            fix="name bundles, or one checkpoint with --checkpoint",
        )
    if checkpoint is None and (named := [name for name in chosen if chosen[name] is not None]):
        raise UsageError(
            f"{named[0]} is given for bundles, which have their precisions",
            fix="leave it out, or name a checkpoint with --checkpoint",
        )
    if checkpoint is not None and against is not None:
        raise UsageError(
            "--against is given with --checkpoint, which is what is compared with",
            fix="leave it out",
        )
    if plot is not None:
        _require_plot(plot, compared=checkpoint is not None or against is not None)
    content = read_text(text)
    if checkpoint is not None:
        report = _of_checkpoint(checkpoint, content, text.name, tokens, chosen, engine, threads)
    else:
        report = _of_bundles(bundles or [], content, text.name, tokens, against, engine, threads)
    if plot is not None:
        from molkv_export.fidelity_plot import plot_fidelity

        plot_fidelity(report.results, plot, f"{report.against} on {text.name}")
    if as_json:
        print_json(report.json())
    else:
        output_console().print(report.table())


def _of_bundles(
    paths: Sequence[Path],
    content: str,
    name: str,
    tokens: int | None,
    against: Path | None,
    engine: str,
    threads: int | None,
) -> Report:
    from molkv_export.cli.fidelity_table import Report
    from molkv_export.evaluate import evaluate as run_evaluation
    from molkv_export.evaluate import open_predictor
    from molkv_export.fidelity import Combination, Fidelity, Footprint
    from molkv_runtime.sessions.graph import default_backend

    opened = [Bundle.open(path) for path in paths]
    if against is not None:
        for bundle in opened:
            _require_comparable(bundle, against)
    predictor = None if against is None else open_predictor(against, remember=len(opened) > 1)
    results = []
    scored: list[int] | None = None
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=None)
        for bundle in opened:
            backend = default_backend(bundle)
            with Session(bundle, engine=engine, threads=threads) as session:
                ids = session.encode(content)[:tokens]
                if scored not in (None, ids):
                    raise UsageError(
                        f"{bundle.path}: its tokenizer cuts the text otherwise than that of "
                        f"{opened[0].path}",
                        fix="compare bundles that share a tokenizer",
                    )
                scored = ids
                bar.update(task, description=str(bundle.path), total=len(ids) * len(opened))
                result = run_evaluation(
                    session,
                    ids,
                    against=predictor,
                    on_tokens=lambda count: bar.advance(task, count),
                )
            facts = Combination.of(bundle, backend), Footprint.of(bundle, backend)
            results.append(Fidelity(str(bundle.path), *facts, result))
    return Report(name, results, None if against is None else str(against))


def _of_checkpoint(
    path: Path,
    content: str,
    name: str,
    tokens: int | None,
    chosen: dict[str, str | None],
    engine: str,
    threads: int | None,
) -> Report:
    from molkv_export.cli.fidelity_table import Report
    from molkv_export.combinations import (
        CombinationProgress,
        combinations,
        evaluate_combinations,
        require_room,
    )
    from molkv_export.divergence import block_rows
    from molkv_export.evaluate import cut, score
    from molkv_export.threads import torch_threads
    from molkv_export.trained_model import TrainedModel
    from molkv_model.checkpoint import Checkpoint
    from molkv_runtime.text import load_tokenizer

    checkpoint = Checkpoint(path)
    config = checkpoint.config
    every = combinations(checkpoint, *map(_listed, chosen.values()))
    require_room(checkpoint, every)
    if checkpoint.tokenizer_file is None:
        raise TokenizerError(
            f"{path}: has no tokenizer, so it takes ids, not text",
            fix="copy the tokenizer.json that the model was trained with into it",
        )
    tokenizer = load_tokenizer(checkpoint.tokenizer_file, config.vocab_size)
    ids = tokenizer.encode(content, add_special_tokens=False).ids[:tokens]
    pieces = cut(ids, config.max_position_embeddings)
    with torch_threads(config.hidden_size), progress_bar() as bar:
        task = bar.add_task(str(path), total=len(ids) * (1 + len(every)))
        trained = TrainedModel(checkpoint.load(), remember=True)
        rows = block_rows(config.vocab_size)
        reference = score(trained, pieces, rows, on_tokens=lambda count: bar.advance(task, count))

        def on_progress(progress: CombinationProgress) -> None:
            bar.update(task, description=progress.name, advance=progress.tokens)

        results = evaluate_combinations(
            checkpoint,
            every,
            ids,
            against=trained,
            tokenizer=tokenizer,
            engine=engine,
            threads=threads,
            on_progress=on_progress,
        )
    return Report(name, results, str(path), reference)


def _listed(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",")]


def _require_plot(file: Path, *, compared: bool) -> None:
    """Refuse a plot that cannot be drawn, before any work."""
    from molkv_export.fidelity_plot import check_plot_file

    if not compared:
        raise UsageError(
            "--plot shows the KL divergence, and nothing is compared",
            fix="name a checkpoint with --against",
        )
    check_plot_file(file)


def _require_comparable(bundle: Bundle, against: Path) -> None:
    """Refuse a model whose logits do not line up with the bundle's, before any work."""
    if (against / MANIFEST_FILE).is_file():
        theirs: ModelEntry | ModelConfig = read_manifest(against).model
    else:
        from molkv_model.checkpoint import Checkpoint

        theirs = Checkpoint(against).config
    ours = bundle.manifest.model
    for field in ("vocab_size", "max_position_embeddings"):
        if getattr(theirs, field) != getattr(ours, field):
            raise UsageError(
                f"{against}: {field} is {getattr(theirs, field)}, that of {bundle.path} is "
                f"{getattr(ours, field)}",
                fix="compare models of one vocabulary and one context",
            )
