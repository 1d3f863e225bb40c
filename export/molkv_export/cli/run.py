"""`molkv run`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from molkv_export.cli.console import error_console, facts_table, print_json, size
from molkv_export.cli.options import (
    BackendOption,
    BundleArgument,
    EngineOption,
    ExpertsModeOption,
    JsonOption,
    ThreadsOption,
)
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session, Token
from molkv_runtime.statistics import SessionStats

__all__ = ["checked_text", "generation_json", "run", "stats_table", "stream"]


def run(
    bundle: BundleArgument,
    prompt: Annotated[str | None, typer.Option(help="The text to continue.")] = None,
    ids: Annotated[
        str | None, typer.Option(help="Token ids to continue instead, as in '12 7 99'.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="The most tokens to generate.", min=1)] = 128,
    temperature: Annotated[float, typer.Option(help="0 always takes the best token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k best tokens; 0 keeps all.")] = 40,
    top_p: Annotated[float, typer.Option(help="Keep the best tokens up to this mass.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Keep tokens above this share of the best.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the random generator.")] = 0,
    experts_mode: ExpertsModeOption = "storage",
    engine: EngineOption = "native",
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    chunk: Annotated[int, typer.Option(help="Prompt tokens that run at once.", min=1)] = 128,
    as_json: JsonOption = False,
) -> None:
    """Generate text from a bundle, expert rows read from file as it goes.

    Example: molkv run bundle --prompt "The President of the United States"
    """
    if (prompt is None) == (ids is None):
        raise UsageError("there is no prompt, or two", fix="give either --prompt or --ids")
    sampling = SamplingConfig(temperature, top_k, top_p, min_p, seed)
    with Session(
        Bundle.open(bundle),
        backend=backend,
        engine=engine,
        threads=threads,
        chunk=chunk,
        experts_mode=experts_mode,
    ) as session:
        prompt_ids = _parse_ids(ids) if ids is not None else session.encode(checked_text(prompt))
        tokens = session.generate(prompt_ids, max_new_tokens=max_tokens, sampling=sampling)
        if session.experts_mode is not None and not as_json:
            error_console().print(f"experts: {session.experts_mode}, {_blob_size(session)}")
        if as_json:
            print_json(generation_json(tokens, session))
            return
        stream(tokens, prompt)
        error_console().print(stats_table(session))


def checked_text(prompt: str | None) -> str:
    """A prompt that is text.

    Raises:
        UsageError: its bytes on the command line were not UTF-8.
    """
    text = prompt or ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"--prompt: the character at {error.start} is not UTF-8", fix="type it as UTF-8 text"
        ) from None
    return text


def generation_json(tokens: Iterable[Token], session: Session) -> dict[str, Any]:
    """The generated text, its ids and the statistics."""
    generated = list(tokens)
    return {
        "text": "".join(token.text for token in generated),
        "ids": [token.id for token in generated],
        "stats": session.stats.to_json(),
    }


def stream(tokens: Iterable[Token], prompt: str | None) -> None:
    """Print text as it comes; ids where there is no tokenizer."""
    if prompt:
        sys.stdout.write(prompt)
    for token in tokens:
        sys.stdout.write(token.text if prompt is not None else f"{token.id} ")
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()


def stats_table(session: Session) -> RenderableType:
    """The session's statistics as a table."""
    stats: SessionStats = session.stats
    facts = {
        "prefill": f"{stats.prefill_tokens_per_s:,.0f} tokens/s ({stats.prefill_tokens} tokens)",
        "decode": f"{stats.decode_tokens_per_s:,.0f} tokens/s ({stats.decode_tokens} tokens)",
        "first token after": f"{stats.time_to_first_token_ms:.1f} ms",
        "expert rows read": f"{stats.rows_read:,} rows, {size(stats.bytes_read)}",
        "lookup": f"{stats.lookup_us_per_token:.0f} µs a token",
        "expert window": size(session.window_bytes),
    }
    return facts_table("Statistics", facts)


def _blob_size(session: Session) -> str:
    return size(sum(file.stat().st_size for file in session.bundle.expert_files))


def _parse_ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--ids is {text!r}", fix="write integers, as in '12 7 99'") from None
