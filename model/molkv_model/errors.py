"""Typed errors of the model package: every message names the place, the value and the fix."""

from __future__ import annotations

__all__ = ["CheckpointError", "ConfigError", "ModelError", "TrainingError"]


class ModelError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        problem: what is wrong, naming the file, the field and the value.
        fix: what the reader can do about it, one sentence.
    """

    def __init__(self, problem: str, *, fix: str = "") -> None:
        super().__init__(f"{problem} ({fix})" if fix else problem)
        self.problem = problem
        self.fix = fix


class ConfigError(ModelError):
    """A model configuration that cannot be built."""


class CheckpointError(ModelError):
    """A checkpoint folder that is incomplete, damaged, or does not fit its config."""


class TrainingError(ModelError):
    """A training run that cannot start or continue."""
