"""Each benchmark's figures as tables of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["TABLES", "markdown_table"]

MB = 1e6
MIB = 1 << 20
Record = dict[str, Any]


def markdown_table(texts: Sequence[str], numbers: Sequence[str], rows: Iterable[list[str]]) -> str:
    """A table whose last columns are numbers.

    Args:
        texts: headings of the columns of text.
        numbers: headings of the columns of numbers, behind them.
        rows: cells, as many as headings.
    """
    lines = [
        [*texts, *numbers],
        [*("---" for _ in texts), *("---:" for _ in numbers)],
        *rows,
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def experts_cost(document: Record) -> str:
    """Speed by precision and context, then memory by precision."""
    speeds, memory = [], []
    for found in document["results"]:
        step, ratio = found["step_s"], found["ratio"]
        eager = found["eager_s"]
        speeds.append(
            [
                *(found["dense"], found["cache"], f"{found['context']:,}"),
                *(f"{1 / step['no experts']:.1f}", f"{found['floor']:.3f}"),
                *(
                    cell
                    for kind in ("warm", "cold")
                    for cell in (
                        f"{1 / step[kind]:.1f}",
                        f"{ratio[kind]:.3f}",
                        "{:.3f} to {:.3f}".format(*found["ratio_range"][kind]),
                    )
                ),
                f"{1e6 * found['lookup_s']['warm']:.0f}",
                f"{found['lookup_s']['warm'] / step['warm']:.1%}",
                *(
                    ("-", "-")
                    if eager is None
                    else (f"{1 / eager:.1f}", f"{eager / step['warm']:.1f}")
                ),
            ]
        )
        if found["context"] == document["results"][0]["context"]:
            none, warm = found["memory"]["no experts"], found["memory"]["warm"]
            more = warm["peak_bytes"] - none["peak_bytes"] - warm["window_bytes"]
            sizes = (none["peak_bytes"], warm["peak_bytes"], warm["window_bytes"], more)
            memory.append([found["dense"], found["cache"], *(f"{size / MB:.1f}" for size in sizes)])
    blob = document["blob_bytes"] / 1e9
    return (
        f"Shape `{document['shape']}`, blob of {blob:.2f} GB, {document['threads']} threads. "
        "Decode in tokens/s; ratios are to the same backbone without experts, medians of "
        f"{document['processes']} processes and their range. The floor is the ratio of the bytes "
        "that a step has to read.\n\n"
        + markdown_table(
            ("dense", "cache"),
            (
                *("context", "no experts", "floor"),
                *("warm", "ratio", "range", "cold", "ratio", "range"),
                *("lookup µs", "of a step", "torch eager", "warm / eager"),
            ),
            speeds,
        )
        + '\nPeak resident memory, MB; "more" is beyond the run without experts and the window.\n\n'
        + markdown_table(("dense", "cache"), ("no experts", "experts", "window", "more"), memory)
    )


def blob_size(document: Record) -> str:
    """One line a size."""
    rows = [
        [
            f"{found['gigabytes']:g}",
            *(f"{1e6 * found['lookup_s'][kind]:.1f}" for kind in ("warm", "cold")),
        ]
        for found in document["results"]
    ]
    return f"Rows of shape `{document['preset']}`, int8.\n\n" + markdown_table(
        ("GB",), ("warm, µs", "cold, µs"), rows
    )


def peers(document: Record) -> str:
    """Every variant, then molkv's ratios to the best peer."""
    load = document["load"]
    speeds = [name for name in document["results"][0] if name.endswith("_tokens_per_s")]
    variants = [
        [
            found["engine"] + (" + experts" if found["experts"] else ""),
            found["cache"],
            str(found["block"] or "-"),
            *(f"{found[name]:.0f}" for name in speeds),
            f"{found['load_s']:.2f}",
            *(
                f"{found[name] / MB:,.0f}"
                for name in ("peak_rss_bytes", "file_bytes", "storage_bytes")
            ),
            f"{found['error']:.1e}",
        ]
        for found in document["results"]
    ]
    ratios = [
        [
            "experts" if found["experts"] else "dense",
            found["cache"],
            _speed(found["figure"]),
            f"{found['best_peer']}, {found['best_peer_variant']}",
            f"{found['tokens_per_s']:.0f}",
            f"{found['best_peer_tokens_per_s']:.0f}",
            f"{found['ratio']:.2f}",
        ]
        for found in document["ratios"]
    ]
    exact = max(found["error"] for found in document["exact"])
    return (
        f"Shape `{document['shape']}`, {load['threads']} threads, prefill of {load['prefill']} "
        f'tokens, {load["steps"]} steps behind each context, tokens/s. "Error" is the distance '
        "of a variant's logits from torch's, relative to their size, on a short prompt; with "
        f'nothing rounded all engines are within {exact:.0e}. "Storage" is the blob, of which '
        "rows are read.\n\n"
        + markdown_table(
            ("engine", "cache", "block"),
            (
                *(_speed(name.removesuffix("_tokens_per_s")) for name in speeds),
                *("load s", "peak MB", "file MB", "storage MB", "error"),
            ),
            variants,
        )
        + "\nmolkv over the best peer, anew for each figure:\n\n"
        + markdown_table(
            ("molkv", "cache", "figure", "best peer"), ("molkv", "peer", "ratio"), ratios
        )
    )


def _speed(figure: str) -> str:
    return figure.replace("decode_", "decode, context ")


def export(document: Record) -> str:
    """Compute, memory, ranks and opening."""
    found = document["results"]
    gigabyte = 1e9
    compute = [
        [
            str(each["threads"]),
            *(f"{each[name] / gigabyte:.1f}" for name in ("rate", "peak")),
            f"{each['share']:.0%}",
        ]
        for each in found["compute"]
    ]
    size = found["memory"]["checkpoint_bytes"]
    memory = [
        [name, f"{peak / MIB:,.0f}", f"{(peak - size) / MIB:,.0f}"]
        for name, peak in found["memory"]["peak_bytes"].items()
    ]
    opened = [
        [f"{each['gibibytes']:g}", f"{each['python_us']:.0f}", f"{each['native_us']:.0f}"]
        for each in found["open"]
    ]
    ranks = found["ranks"]
    return (
        f"Shape `{document['preset']}` with {document['vocabulary']:,} token ids. Matrix products "
        "of the pass that writes rows, of what torch reaches with two large matrices:\n\n"
        + markdown_table(("threads",), ("GFLOP/s", "torch GFLOP/s", "share"), compute)
        + f"\nPeak resident memory, MiB; the checkpoint has {size / MIB:,.0f} MiB.\n\n"
        + markdown_table(("pass",), ("peak", "beyond the checkpoint"), memory)
        + f"\nRows by one process in {ranks['one']['seconds']:.2f} s ({ranks['one']['cores']:.2f} "
        f"cores), by two ranks of torchrun in {ranks['two']['seconds']:.2f} s "
        f"({ranks['two']['cores']:.2f} cores each), one thread each for matrix products: "
        f"{ranks['ratio']:.2f} times as fast.\n\n"
        "Opening a blob, header and checks:\n\n"
        + markdown_table(("GiB",), ("Python µs", "native µs"), opened)
    )


def fidelity(document: Record) -> str:
    """Every combination of precisions."""
    rows = [
        [
            *(found["experts"], found["dense"], found["cache"]),
            f"{found['dense_bytes'] / MIB:.1f}",
            f"{found['blob_bytes'] / MIB:.1f}",
            _with_error(found["perplexity"], found["perplexity_error"], ".3f"),
            _with_error(found["kl_divergence"], found["kl_divergence_error"], ".6f"),
            _with_error(found["same_top1"], found["same_top1_error"], ".2%"),
        ]
        for found in document["results"]
    ]
    reference = document["reference"]
    perplexity = _with_error(reference["perplexity"], reference["perplexity_error"], ".3f")
    return (
        f"`{document['text']}`, {document['results'][0]['tokens']:,} positions; the checkpoint's "
        f"own perplexity is {perplexity}. [fidelity.md](fidelity.md) has the same of a longer "
        "text.\n\n"
        + markdown_table(
            ("experts", "dense", "cache"),
            ("graph MiB", "blob MiB", "perplexity", "KL divergence, nats", "same best token"),
            rows,
        )
    )


def expert_rounding(document: Record) -> str:
    """One line a scheme."""
    rows = [
        [
            found["scheme"],
            _with_error(found["kl_divergence"], found["kl_divergence_error"], ".6f"),
            _with_error(found["same_top1"], found["same_top1_error"], ".2%"),
        ]
        for found in document["results"]
    ]
    return f"{document['positions']:,} positions.\n\n" + markdown_table(
        ("scheme",), ("KL divergence, nats", "same best token"), rows
    )


def _with_error(mean: float, error: float | None, form: str) -> str:
    return f"{mean:{form}} ± " + ("?" if error is None else f"{error:{form}}")


def expert_attention(document: Record) -> str:
    """One line a candidate."""
    rows = []
    for found in document["results"]:
        shape, medians = found["shape"], found["microseconds"]
        stock = medians.get("onnxruntime function")
        for name, median in medians.items():
            sizes = (shape["tokens"], shape["value_size"], shape["window"])
            rows.append(
                [
                    *(name, found["rows in"]),
                    *(f"{size}" for size in sizes),
                    *(f"{median:,.1f}", f"{median / medians['floor']:.2f}"),
                    f"{stock / median:.1f}" if stock else "-",
                ]
            )
    return "The floor reads every key and value once and does nothing.\n\n" + markdown_table(
        ("candidate", "rows in"), ("T", "d", "W", "µs", "x floor", "x faster than stock"), rows
    )


def row_reads(document: Record) -> str:
    """One line a question, one column a reader."""
    names = list(dict.fromkeys(name for each in document["results"] for name in each["seconds"]))
    rows = []
    for found in document["results"]:
        rates = [
            f"{found['rows'] / found['seconds'][name]:,.0f}" if name in found["seconds"] else "-"
            for name in names
        ]
        ratio = found["seconds"]["fio"] / found["seconds"]["molkv"]
        cache = "cold" if found["cold"] else "warm"
        cells = [cache, f"{found['row_bytes'] >> 10}", str(found["readers"])]
        rows.append([*cells, *rates, f"{ratio:.2f}"])
    return "Rows a second, in random order.\n\n" + markdown_table(
        ("page cache",), ("KiB a row", "readers", *names, "molkv / fio"), rows
    )


def backends(document: Record) -> str:
    """One line a candidate."""
    results = document["results"]
    bases = {
        found["shape"]: found
        for found in results
        if (found["backend"], found["dense"]) == ("onnx", "fp32")
    }
    rows = []
    for found in results:
        base = bases.get(found["shape"])
        speeds = []
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
            speeds += [f"{found[name]:,.0f}", f"{found[name] / base[name]:.2f}" if base else "-"]
        rows.append(
            [
                *(found["shape"], found["backend"], found["dense"]),
                *(f"{found['file_bytes'] / MB:.1f}", f"{found['load_s']:.2f}", *speeds),
                *(f"{found[name] / MB:,.0f}" for name in ("model_bytes", "peak_bytes")),
                f"{found['export_s']:.0f}",
            ]
        )
    load = document["load"]
    return (
        f"{load['threads']} threads, prefill of {load['prefill']} tokens, decode behind "
        f"{load['prompt']}, tokens/s; ratios are to ONNX fp32.\n\n"
        + markdown_table(
            ("shape", "backend", "dense"),
            (
                *("file MB", "load s", "prefill", "ratio", "decode", "ratio"),
                *("model MB", "peak MB", "export s"),
            ),
            rows,
        )
    )


def decode_overhead(document: Record) -> str:
    """One line an engine and a sampling."""
    names = ("step_us", "graph_us", "outside_us")
    rows = [
        [
            *(found["engine"], found["sampling"]),
            *(f"{found[name]:,.0f}" for name in names),
            f"{found['share_outside']:.1%}",
        ]
        for found in document["results"]
    ]
    return f"Shape `{document['preset']}`, fp32.\n\n" + markdown_table(
        ("engine", "sampling"), ("step µs", "graph µs", "outside µs", "of a step"), rows
    )


TABLES: dict[str, Callable[[Record], str]] = {
    "experts_cost": experts_cost,
    "blob_size": blob_size,
    "peers": peers,
    "export": export,
    "fidelity": fidelity,
    "expert_rounding": expert_rounding,
    "expert_attention": expert_attention,
    "row_reads": row_reads,
    "backends": backends,
    "decode_overhead": decode_overhead,
}
"""By the `benchmark` that a result says it is of; `molkv eval` says none."""
