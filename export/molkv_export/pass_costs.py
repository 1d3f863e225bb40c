"""What a pass of an export costs: seconds, and the most memory that it had."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

__all__ = ["PassCost", "measured"]

# A lowering lasts seconds and holds what it needs for long; finer steps would only disturb it.
_SAMPLE_SECONDS = 0.01


@dataclass
class PassCost:
    """Filled when the pass is done.

    Attributes:
        seconds: by the clock.
        peak_memory_bytes: the most resident memory of the process, sampled.
    """

    seconds: float = 0.0
    peak_memory_bytes: int = 0


@contextmanager
def measured() -> Iterator[PassCost]:
    """Measure a block."""
    cost, done, process = PassCost(), threading.Event(), psutil.Process()

    def sample() -> None:
        cost.peak_memory_bytes = max(cost.peak_memory_bytes, process.memory_info().rss)

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            sample()

    watcher = threading.Thread(target=watch, daemon=True)
    began = time.perf_counter()
    sample()
    watcher.start()
    try:
        yield cost
    finally:
        done.set()
        watcher.join()
        sample()
        cost.seconds = time.perf_counter() - began
