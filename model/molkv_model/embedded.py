"""The tiny trained checkpoint that the package brings along."""

from __future__ import annotations

from pathlib import Path

from molkv_model.errors import CheckpointError

__all__ = ["tiny_checkpoint"]


def tiny_checkpoint() -> Path:
    """Its folder; README.md inside is the model card.

    Raises:
        CheckpointError: the installation lacks it.
    """
    folder = Path(__file__).parent / "checkpoints" / "tiny"
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: folder is missing", fix="install molkv again")
    return folder
