"""Typed errors of the runtime: every message names the place, the value and the fix."""

from __future__ import annotations

__all__ = [
    "BlobFormatError",
    "BundleError",
    "ContextLengthError",
    "MolkvError",
    "NativeLibraryError",
    "RowCorruptError",
    "TokenIdError",
    "TokenizerError",
    "UsageError",
]


class MolkvError(Exception):
    """Base of every error that molkv raises on purpose.

    Args:
        problem: what is wrong, naming the file, the field and the value.
        fix: what the reader can do about it, one sentence.
    """

    def __init__(self, problem: str, *, fix: str = "") -> None:
        super().__init__(f"{problem} ({fix})" if fix else problem)
        self.problem = problem
        self.fix = fix


class BlobFormatError(MolkvError):
    """An expert blob breaks a rule of docs/format.md, or does not match its bundle."""


class RowCorruptError(MolkvError):
    """A row's bytes do not match the CRC32C stored at its end, or could not be read whole."""


class BundleError(MolkvError):
    """A bundle folder is incomplete, damaged, or of another version."""


class TokenizerError(MolkvError):
    """The tokenizer is missing, unreadable or not the one the model was trained with."""


class TokenIdError(MolkvError):
    """A token id lies outside the vocabulary."""


class ContextLengthError(MolkvError):
    """More tokens than the model's context, or none at all."""


class NativeLibraryError(MolkvError):
    """The native library is missing, cannot be loaded, or is of another version."""


class UsageError(MolkvError):
    """An option or argument that cannot work, refused before any work is done."""
