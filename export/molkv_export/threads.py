"""How many threads torch may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from molkv_runtime.threads import worthwhile_threads

__all__ = ["torch_threads"]


@contextmanager
def torch_threads(hidden_size: int) -> Iterator[None]:
    """Let torch use no more threads than are worthwhile, nor more than it would by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, worthwhile_threads(hidden_size)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
