"""How many threads a model's matrix products are worth."""

from __future__ import annotations

import os

__all__ = ["available_cores", "worthwhile_threads"]

_NARROW = 256


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worthwhile_threads(hidden_size: int) -> int:
    """One for a narrow model, else as many as there are cores.

    The products of a narrow model are so short that threads mostly wait for each other: an export
    of the tiny preset on two busy cores took 73 s with two threads and 11 s with one.
    """
    return 1 if hidden_size <= _NARROW else available_cores()
