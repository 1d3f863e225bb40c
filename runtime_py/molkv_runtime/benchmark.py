"""Measures a session: prefill and decode at several depths, and what expert rows cost."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from molkv_runtime.errors import UsageError
from molkv_runtime.page_cache import drop_from_page_cache
from molkv_runtime.session import Session
from molkv_runtime.threads import available_cores

__all__ = ["BenchConfig", "BenchReport", "BenchResult", "BenchTest", "PageCache", "benchmark"]

PageCache = Literal["warm", "cold"]


@dataclass(frozen=True)
class BenchConfig:
    """What to measure.

    Attributes:
        prompts: lengths of prefills, in tokens.
        generations: lengths of generations, in single steps.
        depths: tokens that the sequence has before.
        repetitions: samples of each test.
        page_cache: ``warm`` repeats the same ids, whose rows are in the page cache after one run
            that is not counted. ``cold`` drops the blob from the page cache before each sample and
            takes other ids.
        seed: of the ids, which are random.

    Raises:
        UsageError: a number is too small.
    """

    prompts: tuple[int, ...] = (512,)
    generations: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0, 512, 1024)
    repetitions: int = 5
    page_cache: PageCache = "warm"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("prompts", 1), ("generations", 1), ("depths", 0)):
            for count in getattr(self, name):
                if count < least:
                    raise UsageError(f"{name} has {count}", fix=f"use at least {least}")
        if self.repetitions < 1:
            raise UsageError(f"repetitions is {self.repetitions}", fix="use at least 1")
        if self.page_cache == "cold" and not hasattr(os, "posix_fadvise"):
            raise UsageError(
                f"page_cache is cold, and {platform.system()} cannot drop a file from its cache",
                fix="use warm",
            )

    def tests(self, context: int) -> tuple[list[BenchTest], list[BenchTest]]:
        """Those that fit a context, and those that do not."""
        every = [
            BenchTest(kind, count, depth)
            for depth in self.depths
            for kind, counts in (("pp", self.prompts), ("tg", self.generations))
            for count in counts
        ]
        fitting = [test for test in every if test.depth + test.tokens <= context]
        return fitting, [test for test in every if test not in fitting]


@dataclass(frozen=True)
class BenchTest:
    """Prefill (``pp``) or generation (``tg``) of some tokens behind some others."""

    kind: str
    tokens: int
    depth: int

    def __str__(self) -> str:
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


@dataclass(frozen=True)
class BenchResult:
    """A test's samples, and what lookup took in them.

    Attributes:
        test: what was measured.
        samples: tokens per second.
        lookup_us_per_token: mean time inside reads and the window.
        rows_per_token: rows read; less than one where tokens repeat within a chunk.
        bytes_read_per_token: of the blob.
    """

    test: BenchTest
    samples: tuple[float, ...]
    lookup_us_per_token: float
    rows_per_token: float
    bytes_read_per_token: float

    @property
    def mean(self) -> float:
        """Of the samples, in tokens per second."""
        return statistics.fmean(self.samples)

    @property
    def deviation(self) -> float:
        """Standard deviation of the samples; 0 for a single one."""
        return statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The figures, for machines."""
        return {
            "test": str(self.test),
            "tokens": self.test.tokens,
            "depth": self.test.depth,
            "tokens_per_s_mean": self.mean,
            "tokens_per_s_stdev": self.deviation,
            "samples": list(self.samples),
            "lookup_us_per_token": self.lookup_us_per_token,
            "rows_per_token": self.rows_per_token,
            "bytes_read_per_token": self.bytes_read_per_token,
        }


@dataclass(frozen=True)
class BenchReport:
    """All results with what they were measured on.

    Attributes:
        facts: of machine, build, bundle and session, by name.
        results: in the order of the tests.
        skipped: tests for which the context has no room.
        peak_rss_bytes: the most memory that the process ever had resident.
        window_bytes: of the expert window's planes.
    """

    facts: dict[str, Any]
    results: list[BenchResult]
    skipped: list[str]
    peak_rss_bytes: int
    window_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Everything; lookup is that of the generations, or of all tests without any."""
        steps = [result for result in self.results if result.test.kind == "tg"] or self.results
        return {
            **self.facts,
            "results": [result.to_json() for result in self.results],
            "skipped": self.skipped,
            "lookup_us_per_token": _mean(result.lookup_us_per_token for result in steps),
            "bytes_read_per_token": _mean(result.bytes_read_per_token for result in steps),
            "peak_rss_bytes": self.peak_rss_bytes,
            "window_bytes": self.window_bytes,
        }


def benchmark(
    session: Session,
    config: BenchConfig,
    on_sample: Callable[[BenchTest, int, int], None] | None = None,
) -> BenchReport:
    """Run all tests that fit the context.

    Args:
        session: of the bundle to measure.
        config: what to measure.
        on_sample: told the test, and how many samples of how many are done.

    Raises:
        UsageError: the context has room for no test.
        RowCorruptError: a row's bytes do not match its checksum.
    """
    fitting, skipped = config.tests(session.context)
    if not fitting:
        raise UsageError(
            f"no test fits the context of {session.context} tokens",
            fix="use shorter prompts and generations, or smaller depths",
        )
    done, total = 0, len(fitting) * config.repetitions
    results = []
    for test in fitting:
        runner = _Runner(session, config, test)
        samples = []
        for sample in runner.samples():
            samples.append(sample)
            done += 1
            if on_sample is not None:
                on_sample(test, done, total)
        results.append(runner.result(samples))
    return BenchReport(
        facts=_facts(session, config),
        results=results,
        skipped=[str(test) for test in skipped],
        peak_rss_bytes=_peak_resident(),
        window_bytes=session.window_bytes,
    )


class _Runner:
    """One test on a session."""

    def __init__(self, session: Session, config: BenchConfig, test: BenchTest) -> None:
        self._session = session
        self._config = config
        self._test = test
        self._totals = np.zeros(4)  # tokens, lookup seconds, rows, bytes

    def samples(self) -> Iterator[float]:
        """Tokens per second, one sample at a time."""
        if self._config.page_cache == "warm":
            self._run(0)
            self._totals[:] = 0
        for number in range(self._config.repetitions):
            if self._config.page_cache == "cold":
                drop_from_page_cache(self._session.bundle.expert_files)
                yield self._run(1 + number)
            else:
                yield self._run(0)

    def result(self, samples: list[float]) -> BenchResult:
        """The test's figures."""
        tokens, seconds, rows, read = self._totals
        return BenchResult(
            self._test, tuple(samples), 1e6 * seconds / tokens, rows / tokens, read / tokens
        )

    def _run(self, number: int) -> float:
        test, session = self._test, self._session
        generator = np.random.default_rng([self._config.seed, number])
        # Generation continues at least one token.
        depth = test.depth if test.kind == "pp" else max(1, test.depth)
        ids = generator.integers(0, session.model.vocab_size, depth + test.tokens)
        session.reset()
        if depth:
            session.prefill(ids[:depth])
        before = session.stats
        began = time.perf_counter()
        if test.kind == "pp":
            session.prefill(ids[depth:])
        else:
            for token in ids[depth : depth + test.tokens].tolist():
                session.step(token)
        elapsed = time.perf_counter() - began
        after = session.stats
        self._totals += (
            test.tokens,
            after.lookup_seconds - before.lookup_seconds,
            after.rows_read - before.rows_read,
            after.bytes_read - before.bytes_read,
        )
        return test.tokens / elapsed


def _mean(figures: Iterator[float]) -> float:
    return statistics.fmean(figures)


def _peak_resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        # `getrusage` would report a parent's peak, which outlives fork and exec.
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _facts(session: Session, config: BenchConfig) -> dict[str, Any]:
    manifest, backend = session.bundle.manifest, session.backend
    sizes = {entry.name: entry.bytes for entry in manifest.files}
    experts = sum(sizes[name] for name in manifest.experts)
    graph = manifest.backends[backend]
    return {
        "bundle": str(session.bundle.path),
        "model": {
            "architecture": manifest.model.architecture,
            "layers": manifest.model.num_hidden_layers,
            "hidden_size": manifest.model.hidden_size,
            "vocab_size": manifest.model.vocab_size,
        },
        "backend": backend,
        "dense": graph.dense,
        "cache": graph.cache,
        "experts": manifest.quantization.experts,
        "embedding": "graph" if manifest.quantization.embedding is None else "storage",
        "experts_mode": session.experts_mode,
        "dense_bytes": sum(
            size
            for name, size in sizes.items()
            if name.split("/")[0] in (graph.graph, f"{graph.graph}.data")
        ),
        "experts_bytes": experts,
        "page_cache": config.page_cache,
        "threads": session.threads,
        "chunk": session.chunk,
        "repetitions": config.repetitions,
        "machine": {
            "processor": _processor(),
            "architecture": platform.machine(),
            "cores": available_cores(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.release()}",
        },
        "build": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("molkv", "onnxruntime" if backend == "onnx" else backend)
            },
        },
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
