"""Typed errors of the exporter."""

from __future__ import annotations

from molkv_runtime.errors import MolkvError

__all__ = ["ExportError"]


class ExportError(MolkvError):
    """An export that cannot be done, or whose output folder is in the way."""
