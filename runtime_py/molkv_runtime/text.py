"""Loads a tokenizer and turns generated token ids into text while they arrive."""

from __future__ import annotations

import codecs
import json
import operator
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer, decoders
from tokenizers.decoders import DecodeStream

from molkv_runtime.errors import TokenIdError, TokenizerError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["TextStream", "load_tokenizer"]

_LARGEST_TOKEN_ID = 2**32 - 1


def load_tokenizer(path: Path, expected_vocabulary_size: int | None = None) -> Tokenizer:
    """Loads a `tokenizer.json`, with truncation and padding switched off.

    A file may carry both from training, where they would silently shorten a long prompt.

    Args:
        path: the file.
        expected_vocabulary_size: the model's V. Every id of the tokenizer must lie below it; a
            smaller tokenizer is fine, because models often pad their vocabulary.

    Raises:
        TokenizerError: the file is missing, unreadable, no JSON, no tokenizer, or has ids that
            the model lacks.
    """
    same_file = "copy the tokenizer.json that the model was trained with to this place"
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TokenizerError(f"tokenizer {path} does not exist", fix=same_file) from None
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"tokenizer {path} is not JSON: byte {error.start} is not UTF-8", fix=same_file
        ) from error
    except OSError as error:
        raise TokenizerError(
            f"tokenizer {path} cannot be read: {error.strerror}",
            fix="pass the path of a readable file",
        ) from error
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises nothing more specific
        raise TokenizerError(
            f"tokenizer {path} {_unusable_because(content, error)}", fix=same_file
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if expected_vocabulary_size is not None:
        # Ids may have gaps, so what must fit is the largest one, not how many there are.
        vocabulary_size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if vocabulary_size > expected_vocabulary_size:
            raise TokenizerError(
                f"tokenizer {path} has a vocabulary of {vocabulary_size} ids, "
                f"and the model one of {expected_vocabulary_size}",
                fix="use the tokenizer.json that the model was trained with",
            )
    return tokenizer


def _unusable_because(content: str, error: Exception) -> str:
    """Says whether a refused file is broken JSON or JSON that is no tokenizer."""
    try:
        json.loads(content)
    except json.JSONDecodeError as json_error:
        return f"is not JSON: {json_error}"
    except RecursionError:
        return "is not usable JSON: it is nested too deeply"
    return f"is JSON, but no tokenizer that this version reads: {error}"


class TextStream:
    """Decodes token ids one by one into whole characters.

    All pushes and the finish together give `tokenizer.decode(ids, skip_special_tokens=...)` of
    all ids. Text is handed out as soon as no later token can change it: at most the first three
    bytes of one UTF-8 character are held back. Ids without a token, as in a padded vocabulary,
    decode to nothing, as they do in `Tokenizer.decode`.

    For a tokenizer whose decoder is byte-level, which is what molkv models use, the tokens' bytes
    go through Python's incremental UTF-8 decoder. The library's own `DecodeStream` is correct
    there but holds text back for as long as the text ends in U+FFFD, even where that is final: a
    run of invalid bytes then shows nothing until it ends, and costs time quadratic in its length.
    Other decoders have no bytes to look at and use `DecodeStream`.

    Args:
        tokenizer: decodes the ids; it must not change while the stream is in use.
        prompt_ids: ids before the first pushed one. Their text is not handed out, but a character
            that they leave unfinished is, once it is complete.
        skip_special_tokens: leaves tokens such as `<|endoftext|>` out of the text. They are shown
            by default, so that nothing a model does is hidden.

    Raises:
        TokenIdError: a prompt id is negative or above 2^32 - 1.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_ids: Iterable[int] = (),
        skip_special_tokens: bool = False,
    ) -> None:
        self._decoder: _IncrementalDecoder
        if isinstance(tokenizer.decoder, decoders.ByteLevel):
            self._decoder = _ByteLevelDecoder(tokenizer, skip_special_tokens)
        else:
            self._decoder = _GeneralDecoder(tokenizer, skip_special_tokens)
        for token_id in prompt_ids:
            self.push(token_id)

    def push(self, token_id: int) -> str:
        """Returns the text that this token settles: whole characters, possibly none.

        Raises:
            TokenIdError: the id is negative or above 2^32 - 1.
            TokenizerError: the tokenizer's decoder rewrites text that was already handed out; no
                byte-level one does.
        """
        token_id = operator.index(token_id)  # NumPy integers are welcome, 1.5 is not
        if not 0 <= token_id <= _LARGEST_TOKEN_ID:
            raise TokenIdError(
                f"token id is {token_id}, and must lie between 0 and {_LARGEST_TOKEN_ID}",
                fix="pass ids that the sampler or the tokenizer gave",
            )
        return self._decoder.push(token_id)

    def finish(self) -> str:
        """Returns what was held back, an incomplete character as U+FFFD, and starts afresh."""
        return self._decoder.finish()


class _IncrementalDecoder(Protocol):
    """What decodes one kind of tokens."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


def _bytes_of_characters() -> dict[str, int]:
    """Returns the byte that each character of a byte-level token stands for.

    Printable characters of Latin-1 stand for themselves, and the other 68 bytes, in order, for
    the characters from U+0100 on. It is the alphabet that GPT-2 introduced.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(0x100) if byte not in printable)
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return alphabet


_BYTE_OF_CHARACTER = _bytes_of_characters()


class _ByteLevelDecoder:
    """Decodes byte-level tokens through their bytes."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        added_tokens = tokenizer.get_added_tokens_decoder() if skip_special_tokens else {}
        self._skipped = frozenset(
            token_id for token_id, token in added_tokens.items() if token.special
        )
        # Like the library's decoder, it writes one U+FFFD for each maximal invalid part.
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._characters.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        return self._characters.decode(b"", final=True)  # which also empties it

    def _bytes_of(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._skipped:
            return b""
        try:
            return bytes([_BYTE_OF_CHARACTER[character] for character in token])
        except KeyError:
            # An added token may hold characters outside the alphabet; it is then plain text.
            return token.encode("utf-8")


class _GeneralDecoder:
    """Decodes tokens of any decoder with the library's stream, and adds the end it lacks."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        self._start()

    def _start(self) -> None:
        # The stream takes prompt ids too, but if they end inside a character it hands out their
        # whole text again. So a prompt is pushed like other ids, and its text dropped.
        self._stream = DecodeStream(skip_special_tokens=self._skip_special_tokens)
        self._token_ids: list[int] = []
        self._handed_out = ""

    def push(self, token_id: int) -> str:
        self._token_ids.append(token_id)
        try:
            text = self._stream.step(self._tokenizer, token_id) or ""
        except Exception as error:
            raise self._rewritten(str(error)) from error
        self._handed_out += text
        return text

    def finish(self) -> str:
        everything = self._tokenizer.decode(
            self._token_ids, skip_special_tokens=self._skip_special_tokens
        )
        if not everything.startswith(self._handed_out):
            raise self._rewritten("the whole text differs from the parts")
        tail = everything[len(self._handed_out) :]
        self._start()
        return tail

    @staticmethod
    def _rewritten(detail: str) -> TokenizerError:
        return TokenizerError(
            f"the tokenizer's decoder rewrites text that was already handed out: {detail}",
            fix="decode all ids at once with Tokenizer.decode",
        )
