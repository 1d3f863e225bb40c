"""Finds and loads the native library, and turns its errors into molkv's."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

import molkv_runtime.native as package
from molkv_runtime.errors import (
    BlobFormatError,
    MolkvError,
    NativeLibraryError,
    RowCorruptError,
    TokenIdError,
    TokenizerError,
)
from molkv_runtime.native.structures import Error, Status

__all__ = [
    "ABI_VERSION",
    "TOKENIZER_ERRORS",
    "Handle",
    "NativeLibrary",
    "load_library",
    "operator_library",
]

ABI_VERSION = 1
_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

_ERRORS: dict[Status, type[MolkvError]] = {
    Status.IO: BlobFormatError,
    Status.FORMAT: BlobFormatError,
    Status.CORRUPT_ROW: RowCorruptError,
    Status.OUT_OF_RANGE: TokenIdError,
}
TOKENIZER_ERRORS: dict[Status, type[MolkvError]] = {
    Status.IO: TokenizerError,
    Status.FORMAT: TokenizerError,
    Status.UNSUPPORTED: TokenizerError,
}
_STATUS_FUNCTIONS = (
    "blob_open",
    "blob_open_descriptor",
    "blob_read",
    "blob_embeddings",
    "prefetch_start",
    "prefetch_wait",
    "window_create",
    "window_append",
    "window_plane",
    "window_truncate",
    "window_fork",
    "attention",
    "sampler_create",
    "sampler_sample",
    "tokenizer_open",
    "tokenizer_parse",
    "tokenizer_encode",
    "tokenizer_decode",
    "text_stream_create",
    "text_stream_push",
    "text_stream_finish",
)
_RETURNS: dict[str, Any] = {
    "blob_embedding_dtype": ctypes.c_uint32,
    "window_bytes": ctypes.c_uint64,
    "kernel_available": ctypes.c_int,
    "kernel_name": ctypes.c_char_p,
    "attention_scratch_bytes": ctypes.c_size_t,
    "tokenizer_vocabulary_size": ctypes.c_uint64,
    "tokenizer_token_count": ctypes.c_uint64,
    "tokenizer_find": ctypes.c_int64,
}
_NOTHING_RETURNED = (
    "blob_close",
    "blob_get_info",
    "blob_get_stats",
    "prefetch_free",
    "window_free",
    "window_bounds",
    "window_reset",
    "sampler_free",
    "sampler_reset",
    "tokenizer_close",
    "text_stream_free",
)


class NativeLibrary:
    """A loaded libmolkv.

    Args:
        file: the shared library.

    Raises:
        NativeLibraryError: it cannot be loaded, or has another ABI version.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._library = ctypes.CDLL(str(file))
            version = self._library.molkv_abi_version()
            if version != ABI_VERSION:
                raise NativeLibraryError(
                    f"{file}: ABI version is {version}, this package binds {ABI_VERSION}",
                    fix="install molkv again, so that the library is rebuilt",
                )
            self._functions = {
                name: getattr(self._library, f"molkv_{name}")
                for name in (*_STATUS_FUNCTIONS, *_RETURNS, *_NOTHING_RETURNED)
            }
        except (OSError, AttributeError) as error:
            raise NativeLibraryError(
                f"{file}: cannot be loaded: {error}", fix="install molkv again"
            ) from None
        for name, type_ in _RETURNS.items():
            self._functions[name].restype = type_
        for name in _NOTHING_RETURNED:
            self._functions[name].restype = None

    def call(
        self, name: str, *arguments: Any, errors: dict[Status, type[MolkvError]] | None = None
    ) -> None:
        """Call a function that reports a status.

        Args:
            name: the function, without ``molkv_``.
            arguments: ctypes values, all but the last ``molkv_error*``.
            errors: what to raise where it differs from the usual.

        Raises:
            MolkvError: of the kind that fits the status, with the library's own message.
        """
        error = Error()
        status = self._functions[name](*arguments, ctypes.byref(error))
        if status:
            raise _error(Status(status), error.message.decode(errors="replace"), errors or {})

    def plain(self, name: str, *arguments: Any) -> Any:
        """Call a function that cannot fail."""
        return self._functions[name](*arguments)


class Handle:
    """Something that the library made and must be given back.

    Args:
        library: whose it is.
        free: the function that gives it back, without ``molkv_``.
    """

    def __init__(self, library: NativeLibrary, free: str) -> None:
        self.library = library
        self._free = free
        self.pointer = ctypes.c_void_p()

    def close(self) -> None:
        """Give it back. Repeatable."""
        if self.pointer:
            self.library.plain(self._free, self.pointer)
            self.pointer = ctypes.c_void_p()

    def __del__(self) -> None:
        if hasattr(self, "pointer"):
            self.close()


@cache
def load_library() -> NativeLibrary:
    """The library that was installed with this package.

    Raises:
        NativeLibraryError: there is none, or it does not fit.
    """
    return NativeLibrary(_installed("libmolkv"))


def operator_library() -> Path:
    """libmolkv_ort, the op for ONNX Runtime, that was installed with this package.

    Raises:
        NativeLibraryError: there is none.
    """
    return _installed("libmolkv_ort")


def _installed(name: str) -> Path:
    # An editable install has two folders: the sources, and where the build put the libraries.
    folders = [Path(folder) for folder in package.__path__]
    for folder in folders:
        file = folder / f"{name}{_SUFFIX}"
        if file.is_file():
            return file
    raise NativeLibraryError(
        f"{folders[0]}: {name}{_SUFFIX} is missing",
        fix="install molkv with pip, which builds it, or use the reference engine",
    )


def _error(
    status: Status, message: str, errors: dict[Status, type[MolkvError]]
) -> MolkvError | MemoryError:
    if status is Status.OUT_OF_MEMORY:
        return MemoryError(message)
    problem, fix = _split(message)
    return errors.get(status, _ERRORS.get(status, MolkvError))(problem, fix=fix)


def _split(message: str) -> tuple[str, str]:
    """The library's messages end in the fix, in brackets, as ours do."""
    depth = 0
    for place in range(len(message) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(message[place], 0)
        if depth == 0:
            break
    if not message.endswith(")") or message[place - 1] != " ":
        return message, ""
    return message[: place - 1], message[place + 1 : -1]
