"""Where expert rows are while a session runs."""

from __future__ import annotations

from typing import Literal, get_args

from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError

__all__ = ["RESIDENT_BYTES", "ExpertsMode", "is_resident"]

ExpertsMode = Literal["storage", "resident", "auto"]
RESIDENT_BYTES = 64 << 20
"""The largest blob that `auto` keeps in memory: little beside the dense graph's own weights."""


def is_resident(bundle: Bundle, mode: ExpertsMode) -> bool:
    """Whether a mode keeps a bundle's rows in memory.

    Raises:
        UsageError: there is no such mode.
    """
    modes = get_args(ExpertsMode)
    if mode not in modes:
        raise UsageError(f"experts_mode is {mode!r}", fix=f"one of {', '.join(modes)}")
    if mode != "auto":
        return mode == "resident"
    return sum(file.stat().st_size for file in bundle.expert_files) <= RESIDENT_BYTES
