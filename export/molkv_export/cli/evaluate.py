"""`molkv eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from molkv_export.cli.console import facts_table, output_console, print_json, progress_bar
from molkv_export.cli.options import BundleArgument, EngineOption, JsonOption, ThreadsOption
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.manifest import MANIFEST_FILE, ModelEntry, read_manifest
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from molkv_export.evaluate import Evaluation
    from molkv_model.config import ModelConfig

__all__ = ["evaluate"]


def evaluate(
    bundle: BundleArgument,
    text: Annotated[Path, typer.Option(metavar="FILE", help="UTF-8 text to score.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A checkpoint or bundle to measure the distance to."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Score this many tokens.", min=2, show_default="all")
    ] = None,
    engine: EngineOption = "native",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Perplexity of a text; with --against also KL divergence and same-top-1, with error bars.

    Example: molkv eval bundle --text speech.txt --against checkpoint
    """
    from molkv_export.evaluate import evaluate as run_evaluation
    from molkv_export.evaluate import open_predictor

    opened = Bundle.open(bundle)
    if against is not None:
        _require_comparable(opened, against)
    with Session(opened, engine=engine, threads=threads) as session:
        ids = session.encode(_read(text))[:tokens]
        predictor = None if against is None else open_predictor(against)
        with progress_bar() as bar:
            task = bar.add_task("scoring", total=len(ids))
            result = run_evaluation(
                session,
                ids,
                against=predictor,
                on_tokens=lambda count: bar.advance(task, count),
            )
    if as_json:
        print_json(_as_json(result))
        return
    facts = {
        "perplexity": f"{result.perplexity:.3f} ± {result.perplexity_error:.3f}",
        "loss": f"{result.loss.mean:.4f} ± {result.loss.error:.4f} nats a token",
        "tokens scored": f"{result.tokens:,}",
    }
    if result.comparison is not None:
        divergence, same = result.comparison.kl_divergence, result.comparison.same_top1
        facts["KL divergence"] = f"{divergence.mean:.6f} ± {divergence.error:.6f} nats a token"
        facts["same top-1"] = f"{100 * same.mean:.2f} ± {100 * same.error:.2f} %"
    output_console().print(facts_table(f"{bundle} on {text.name}", facts))


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


def _as_json(result: Evaluation) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "tokens": result.tokens,
        "loss": result.loss.mean,
        "perplexity": result.perplexity,
        "perplexity_error": result.perplexity_error,
        "kl_divergence": None,
        "same_top1": None,
    }
    if result.comparison is not None:
        for name in ("kl_divergence", "same_top1"):
            estimate = getattr(result.comparison, name)
            facts[name] = estimate.mean
            facts[f"{name}_error"] = estimate.error
    return facts


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: byte {error.start} is not UTF-8", fix="convert the file to UTF-8"
        ) from None
