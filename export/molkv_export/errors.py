"""Typed errors of the exporter."""

from __future__ import annotations

from molkv_runtime.errors import MolkvError

__all__ = ["ExportError", "InterruptedExportError"]


class ExportError(MolkvError):
    """An export that cannot be done, or whose output folder is in the way."""


class InterruptedExportError(ExportError):
    """An export that was stopped from outside; the same export goes on where it stopped."""
