"""How many threads a model's matrix products are worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["torch_threads", "worthwhile_threads"]

_NARROW = 256


def worthwhile_threads(hidden_size: int) -> int | None:
    """One for a narrow model, None for as many as there are cores.

    The products of a narrow model are so short that threads mostly wait for each other: an export
    of the tiny preset on two busy cores took 73 s with two threads and 11 s with one.
    """
    return 1 if hidden_size <= _NARROW else None


@contextmanager
def torch_threads(hidden_size: int) -> Iterator[None]:
    """Let torch use no more threads than are worthwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(worthwhile_threads(hidden_size) or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
