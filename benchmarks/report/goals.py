"""The project's goals of speed, memory and fidelity, each with the figure that was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.report.runs import Results

__all__ = ["Goal", "goals"]

MIB, GIB = 1 << 20, 1 << 30
MOST_OPENING_US = 1000.0
Record = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        claim: what has to hold.
        source: the benchmark that measures it.
        bound: the least or the most that is allowed.
        at_least: whether the bound is the least.
        figure: what was measured, the worst where there are several; None if nothing was.
        form: how figure and bound are written.
        where: of several figures, which one it is; and others that a reader should know.
    """

    claim: str
    source: str
    bound: float
    at_least: bool
    figure: float | None
    form: str = "{:.2f}"
    where: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it holds; None if it was not measured."""
        if self.figure is None:
            return None
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]

    @property
    def bound_text(self) -> str:
        """Such as ``≥ 0.97``."""
        return f"{'≥' if self.at_least else '≤'} {self.form.format(self.bound)}"

    @property
    def figure_text(self) -> str:
        """With the unit of the bound."""
        return "-" if self.figure is None else self.form.format(self.figure)


def goals(results: Results) -> list[Goal]:
    """All goals, in the order of the document; without results they are not measured."""
    return [
        *_experts_cost(results.get("experts-cost")),
        _blob_size(results.get("blob-size"), results.get("experts-cost")),
        *(goal for bits in (4, 8) for goal in _peers(bits, results.get(f"peers-{bits}"))),
        *_export(results.get("export")),
        *_fidelity(results.get("fidelity")),
    ]


@dataclass(frozen=True)
class _Figure:
    value: float
    where: str = ""


def _worst(figures: Iterable[_Figure], *, at_least: bool) -> _Figure | None:
    found = list(figures)
    if not found:
        return None
    return (min if at_least else max)(found, key=lambda figure: figure.value)


def _goal(
    claim: str,
    source: str,
    bound: float,
    figures: Iterable[_Figure],
    *,
    at_least: bool,
    form: str = "{:.2f}",
) -> Goal:
    worst = _worst(figures, at_least=at_least)
    if worst is None:
        return Goal(claim, source, bound, at_least, None, form)
    return Goal(claim, source, bound, at_least, worst.value, form, worst.where)


def _experts_cost(document: Record | None) -> list[Goal]:
    source = "experts-cost"
    records = [] if document is None else document["results"]

    def each(of: Callable[[Record], float | None]) -> Iterator[_Figure]:
        for record in records:
            value = of(record)
            if value is not None:
                yield _Figure(value, where(record))

    def where(record: Record) -> str:
        return f"{record['dense']}, cache {record['cache']}, context {record['context']}"

    def ratios(kind: str) -> Iterator[_Figure]:
        for record in records:
            floor = f"by the bytes of a step at most {record['floor']:.3f}"
            yield _Figure(record["ratio"][kind], f"{where(record)}; {floor}")

    def eager_ratio(record: Record) -> float | None:
        if record["dense"] != "int4" or record["eager_s"] is None:
            return None
        return float(record["eager_s"] / record["step_s"]["warm"])

    def more_memory(record: Record) -> float:
        none, warm = record["memory"]["no experts"], record["memory"]["warm"]
        return float(warm["peak_bytes"] - none["peak_bytes"] - warm["window_bytes"]) / 1e6

    return [
        *(
            _goal(
                f"Decode with experts from storage, page cache {kind}, over the same backbone "
                "without experts",
                source,
                bound,
                ratios(kind),
                at_least=True,
                form="{:.3f}",
            )
            for kind, bound in (("warm", 0.97), ("cold", 0.93))
        ),
        _goal(
            "Lookup, of a step, page cache warm",
            source,
            0.03,
            each(lambda record: record["lookup_s"]["warm"] / record["step_s"]["warm"]),
            at_least=False,
            form="{:.1%}",
        ),
        _goal(
            "Peak memory beyond the run without experts and the window, MB",
            source,
            32.0,
            each(more_memory),
            at_least=False,
            form="{:.1f}",
        ),
        _goal(
            "Decode with int4 dense weights over torch eager with the whole table in memory",
            source,
            3.0,
            each(eager_ratio),
            at_least=True,
            form="{:.1f}",
        ),
        _goal(
            "Step at the longest context over that at the shortest, int8 self-attention cache",
            source,
            1.8,
            _growth(records),
            at_least=False,
        ),
    ]


def _blob_size(sizes: Record | None, steps: Record | None) -> Goal:
    """How much longer a lookup takes in the largest blob than in the smallest, of a step."""
    figures = []
    if sizes is not None and steps is not None:
        lookups = {found["gigabytes"]: found["lookup_s"] for found in sizes["results"]}
        small, large = min(lookups), max(lookups)
        fastest = min(found["step_s"]["warm"] for found in steps["results"])
        figures = [
            _Figure((lookups[large][kind] - lookups[small][kind]) / fastest, f"{kind}, {where}")
            for kind in ("warm", "cold")
            for where in [f"{small:g} and {large:g} GB, of the fastest step of experts-cost"]
        ]
    return _goal(
        "More lookup in the largest blob than in the smallest, of a step",
        "blob-size",
        0.03,
        figures,
        at_least=False,
        form="{:.1%}",
    )


def _growth(records: list[Record]) -> Iterator[_Figure]:
    steps: dict[str, dict[int, float]] = {}
    for record in records:
        if record["cache"] == "int8":
            steps.setdefault(record["dense"], {})[record["context"]] = record["step_s"]["warm"]
    for dense, found in steps.items():
        if len(found) > 1:
            short, long = min(found), max(found)
            yield _Figure(found[long] / found[short], f"{dense}, contexts {short} and {long}")


def _peers(bits: int, document: Record | None) -> list[Goal]:
    """Experts from storage and an int8 cache, against the fastest peer without experts."""
    bounds = {"prefill": 1.0, "decode_64": 1.2, "decode_1024": 1.8}
    if bits == 8:
        bounds = dict.fromkeys(bounds, 1.0)
    ratios = {} if document is None else _peer_ratios(document)
    return [
        _goal(
            f"{_PEER_CLAIMS[what].format(bits=bits)}, over the best peer without experts",
            f"peers-{bits}",
            bound,
            [ratios[what]] if what in ratios else [],
            at_least=True,
        )
        for what, bound in bounds.items()
    ]


_PEER_CLAIMS = {
    "prefill": "Prefill at {bits} bits, experts from storage",
    "decode_64": "Decode at {bits} bits, experts from storage, context 64",
    "decode_1024": "Decode at {bits} bits, experts from storage, context 1024",
}


def _peer_ratios(document: Record) -> dict[str, _Figure]:
    return {
        ratio["figure"]: _Figure(
            ratio["ratio"],
            f"{ratio['tokens_per_s']:.0f} against {ratio['best_peer_tokens_per_s']:.0f} tokens/s "
            f"of {ratio['best_peer']} ({ratio['best_peer_variant']})",
        )
        for ratio in document["ratios"]
        if ratio["experts"] and ratio["cache"] == "int8"
    }


def _export(document: Record | None) -> list[Goal]:
    source = "export"
    found: Record = {} if document is None else document["results"]
    shares = [
        _Figure(each["share"], f"{each['threads']} threads") for each in found.get("compute", ())
    ]
    memory = found.get("memory")
    passes = [] if memory is None else memory["peak_bytes"].items()
    beyond = [_Figure((peak - memory["checkpoint_bytes"]) / GIB, name) for name, peak in passes]
    ranks = [_Figure(found["ranks"]["ratio"])] if "ranks" in found else []
    openings = [
        _Figure(each[f"{kind}_us"], f"{kind}, {each['gibibytes']:g} GiB")
        for each in found.get("open", ())
        for kind in ("python", "native")
    ]
    return [
        _goal(
            "Export's matrix products, of torch's own peak",
            source,
            0.7,
            shares,
            at_least=True,
            form="{:.0%}",
        ),
        _goal(
            "Export's peak memory beyond the checkpoint, GiB",
            source,
            1.0,
            beyond,
            at_least=False,
        ),
        _goal("Two torchrun ranks over one", source, 1.7, ranks, at_least=True),
        _goal(
            "Opening a blob of any size, µs",
            source,
            MOST_OPENING_US,
            openings,
            at_least=False,
            form="{:.0f}",
        ),
    ]


def _fidelity(document: Record | None) -> list[Goal]:
    records = [] if document is None else document["results"]

    def each(experts: str, figure: str) -> list[_Figure]:
        return [
            _Figure(record[figure], "dense and cache fp32")
            for record in records
            if (record["experts"], record["dense"], record["cache"]) == (experts, "fp32", "fp32")
        ]

    source, divergence, same = "fidelity", "kl_divergence", "same_top1"
    return [
        _goal(
            "KL divergence of int8 experts on a trained model, nats",
            source,
            0.001,
            each("int8", divergence),
            at_least=False,
            form="{:.5f}",
        ),
        _goal(
            "KL divergence of int4 experts on a trained model, nats",
            source,
            0.02,
            each("int4", divergence),
            at_least=False,
            form="{:.5f}",
        ),
        _goal(
            "Same best token with int4 experts on a trained model",
            source,
            0.97,
            each("int4", same),
            at_least=True,
            form="{:.1%}",
        ),
    ]
