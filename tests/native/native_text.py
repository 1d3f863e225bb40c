"""The sampler, tokenizer and text stream of the native library, as the tests call them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

INVALID_ARGUMENT = 1
IO = 2
FORMAT = 3
OUT_OF_RANGE = 5
UNSUPPORTED = 7

SIZE = ctypes.c_size_t
ID = ctypes.c_int64


class NativeError(Exception):
    """What a native function reported."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ErrorStruct(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("message", ctypes.c_char * 1020)]


class SamplingStruct(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("top_k", ctypes.c_uint32),
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("seed", ctypes.c_uint64),
    ]


class TextLibrary:
    """The library's text functions, with errors as exceptions."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.molkv_tokenizer_vocabulary_size.restype = ctypes.c_uint64
        self._library.molkv_tokenizer_find.restype = ctypes.c_int64
        for name in ("sampler_free", "sampler_reset", "tokenizer_close", "text_stream_free"):
            getattr(self._library, f"molkv_{name}").restype = None

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function that reports a status."""
        error = ErrorStruct()
        status = getattr(self._library, f"molkv_{name}")(*arguments, ctypes.byref(error))
        if status != 0:
            assert error.status == status
            raise NativeError(status, error.message.decode(errors="replace"))

    def plain(self, name: str, *arguments: object) -> int:
        """Calls a function that reports no status."""
        result: int = getattr(self._library, f"molkv_{name}")(*arguments)
        return result


class Handle:
    """An object of the library, given back with it."""

    close_name = ""

    def __init__(self, library: TextLibrary) -> None:
        self.library = library
        self.pointer = ctypes.c_void_p()

    def __del__(self) -> None:
        self.library.plain(self.close_name, self.pointer)


class NativeSampler(Handle):
    close_name = "sampler_free"

    def __init__(
        self,
        library: TextLibrary,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
        struct_size: int = ctypes.sizeof(SamplingStruct),
    ) -> None:
        super().__init__(library)
        sampling = SamplingStruct(struct_size, top_k, temperature, top_p, min_p, seed)
        library.call("sampler_create", ctypes.byref(sampling), ctypes.byref(self.pointer))

    def sample(self, logits: NDArray[np.float32]) -> int:
        assert logits.dtype == np.float32
        logits = np.ascontiguousarray(logits)
        token_id = ID(-1)
        address = ctypes.c_void_p(logits.ctypes.data)
        self.library.call(
            "sampler_sample", self.pointer, address, SIZE(len(logits)), ctypes.byref(token_id)
        )
        return token_id.value

    def reset(self) -> None:
        self.library.plain("sampler_reset", self.pointer)


class NativeTokenizer(Handle):
    close_name = "tokenizer_close"

    @classmethod
    def parse(cls, library: TextLibrary, json: str | bytes) -> Self:
        content = json.encode() if isinstance(json, str) else json
        tokenizer = cls(library)
        library.call(
            "tokenizer_parse", content, SIZE(len(content)), ctypes.byref(tokenizer.pointer)
        )
        return tokenizer

    @classmethod
    def open(cls, library: TextLibrary, path: Path) -> Self:
        tokenizer = cls(library)
        library.call("tokenizer_open", bytes(path), ctypes.byref(tokenizer.pointer))
        return tokenizer

    @property
    def vocabulary_size(self) -> int:
        return self.library.plain("tokenizer_vocabulary_size", self.pointer)

    def find(self, content: str) -> int:
        encoded = content.encode()
        return self.library.plain("tokenizer_find", self.pointer, encoded, SIZE(len(encoded)))

    def encode(self, text: str | bytes) -> list[int]:
        content = text.encode() if isinstance(text, str) else text
        # An invalid byte is read as three, and a space may be put in front of each piece.
        token_ids = np.empty(4 * len(content) + 1, np.int64)
        count = SIZE(len(token_ids))
        self.library.call(
            "tokenizer_encode",
            self.pointer,
            content,
            SIZE(len(content)),
            ctypes.c_void_p(token_ids.ctypes.data),
            ctypes.byref(count),
        )
        ids: list[int] = token_ids[: count.value].tolist()
        return ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        ids = np.fromiter(token_ids, np.int64)
        arguments = (
            self.pointer,
            ctypes.c_void_p(ids.ctypes.data),
            SIZE(len(ids)),
            int(skip_special_tokens),
        )
        size = SIZE(0)
        self.library.call("tokenizer_decode", *arguments, None, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value + 1)
        self.library.call("tokenizer_decode", *arguments, buffer, ctypes.byref(size))
        return buffer.raw[: size.value].decode()  # strict: half a character would raise


class NativeTextStream(Handle):
    close_name = "text_stream_free"

    def __init__(self, tokenizer: NativeTokenizer, *, skip_special_tokens: bool = False) -> None:
        super().__init__(tokenizer.library)
        self.tokenizer = tokenizer  # which must outlive the stream
        self.library.call(
            "text_stream_create",
            tokenizer.pointer,
            int(skip_special_tokens),
            ctypes.byref(self.pointer),
        )

    def push(self, token_id: int) -> str:
        return self._text("text_stream_push", ID(token_id))

    def finish(self) -> str:
        return self._text("text_stream_finish")

    def _text(self, name: str, *arguments: object) -> str:
        text = ctypes.c_void_p()
        size = SIZE(0)
        self.library.call(name, self.pointer, *arguments, ctypes.byref(text), ctypes.byref(size))
        return ctypes.string_at(text.value or 0, size.value).decode() if size.value else ""
