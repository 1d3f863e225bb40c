"""The byte-level BPE tokenizer of the native core, and text that comes token by token."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

import numpy as np

from molkv_runtime.native.library import TOKENIZER_ERRORS, Handle, NativeLibrary, load_library

__all__ = ["NativeTextStream", "NativeTokenizer"]


class NativeTokenizer(Handle):
    """Reads a ``tokenizer.json`` of byte-level BPE.

    Args:
        path: the file.
        library: by default the installed one.

    Raises:
        TokenizerError: it cannot be read, is no tokenizer, or has a part that would change a
            result and that devices do not support; the message names it.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, library: NativeLibrary | None = None
    ) -> None:
        super().__init__(library or load_library(), "tokenizer_close")
        self.library.call(
            "tokenizer_open",
            os.fsencode(path),
            ctypes.byref(self.pointer),
            errors=TOKENIZER_ERRORS,
        )

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id."""
        return int(self.library.plain("tokenizer_vocabulary_size", self.pointer))

    @property
    def token_count(self) -> int:
        """How many tokens there are; ids may have gaps."""
        return int(self.library.plain("tokenizer_token_count", self.pointer))

    def find(self, content: str) -> int | None:
        """The id of a token by its content, such as ``<|endoftext|>``."""
        encoded = content.encode()
        found = self.library.plain(
            "tokenizer_find", self.pointer, encoded, ctypes.c_size_t(len(encoded))
        )
        return None if found < 0 else int(found)

    def encode(self, text: str | bytes) -> list[int]:
        """Token ids of a text; bytes that are no UTF-8 are read as U+FFFD.

        Raises:
            UnicodeEncodeError: a string holds a lone surrogate.
        """
        content = text.encode() if isinstance(text, str) else text
        # An invalid byte is read as three, and a space may be put in front of each piece.
        token_ids = np.empty(4 * len(content) + 1, np.int64)
        count = ctypes.c_size_t(len(token_ids))
        self.library.call(
            "tokenizer_encode",
            self.pointer,
            content,
            ctypes.c_size_t(len(content)),
            ctypes.c_void_p(token_ids.ctypes.data),
            ctypes.byref(count),
            errors=TOKENIZER_ERRORS,
        )
        ids: list[int] = token_ids[: count.value].tolist()
        return ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of some ids.

        Raises:
            TokenIdError: an id is negative or above 2^32 - 1.
        """
        ids = np.fromiter(token_ids, np.int64)
        arguments = (
            self.pointer,
            ctypes.c_void_p(ids.ctypes.data),
            ctypes.c_size_t(len(ids)),
            int(skip_special_tokens),
        )
        size = ctypes.c_size_t()
        self.library.call("tokenizer_decode", *arguments, None, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value + 1)
        self.library.call("tokenizer_decode", *arguments, buffer, ctypes.byref(size))
        return buffer.raw[: size.value].decode()


class NativeTextStream(Handle):
    """Decodes ids one by one into whole characters.

    Args:
        tokenizer: decodes the ids.
        prompt_ids: ids before the first pushed one. Their text is not handed out, but a character
            that they leave unfinished is, once it is complete.
        skip_special_tokens: leaves tokens such as ``<|endoftext|>`` out of the text.
    """

    def __init__(
        self,
        tokenizer: NativeTokenizer,
        *,
        prompt_ids: Iterable[int] = (),
        skip_special_tokens: bool = False,
    ) -> None:
        super().__init__(tokenizer.library, "text_stream_free")
        self._tokenizer = tokenizer  # which must outlive the stream
        self._text, self._size = ctypes.c_void_p(), ctypes.c_size_t()
        self.library.call(
            "text_stream_create",
            tokenizer.pointer,
            int(skip_special_tokens),
            ctypes.byref(self.pointer),
        )
        for token_id in prompt_ids:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """The whole characters that a token completes, possibly none.

        Raises:
            TokenIdError: the id is negative or above 2^32 - 1.
        """
        return self._take("text_stream_push", ctypes.c_int64(token_id))

    def finish(self) -> str:
        """What was held back, an incomplete character as U+FFFD; then it starts afresh."""
        return self._take("text_stream_finish")

    def _take(self, name: str, *arguments: ctypes.c_int64) -> str:
        self.library.call(
            name, self.pointer, *arguments, ctypes.byref(self._text), ctypes.byref(self._size)
        )
        size = self._size.value
        return ctypes.string_at(self._text, size).decode() if size else ""
