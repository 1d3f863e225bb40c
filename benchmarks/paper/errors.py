"""What the study raises on purpose, beside the errors of the model package."""

from __future__ import annotations

from molkv_model.errors import ModelError

__all__ = ["StudyError"]


class StudyError(ModelError):
    """A corpus or result that is missing, damaged, or not comparable with the others."""
