"""Training text: a tokenizer trained on it, its token ids, and the held-out split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from molkv_model.errors import TrainingError
from molkv_model.weight_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["END_OF_TEXT", "Corpus", "TextFile", "encode_corpus", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
_PIECE_CHARACTERS = 100_000
_SPAN_TOKENS = 16_384
_HELD_OUT_EVERY = 10


@dataclass(frozen=True)
class TextFile:
    """A text file and the hash of what was read from it.

    Attributes:
        name: the file's base name.
        text: its content.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    text: str
    sha256: str

    @classmethod
    def read(cls, path: str | Path) -> TextFile:
        """Read a UTF-8 file.

        Raises:
            TrainingError: it is missing, empty or not UTF-8.
        """
        file = Path(path)
        try:
            content = file.read_bytes()
            text = content.decode("utf-8")
        except OSError as error:
            raise TrainingError(f"{file}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise TrainingError(
                f"{file}: byte {error.start} is not UTF-8", fix="convert the file to UTF-8"
            ) from None
        if not text.strip():
            raise TrainingError(f"{file}: holds no text")
        return cls(file.name, text, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Corpus:
    """Token ids, split.

    Attributes:
        training: int64 or int32 [tokens].
        validation: int64 or int32 [tokens], held out.
    """

    training: Tensor
    validation: Tensor

    def save(self, file: Path) -> None:
        """Write the ids as int32 to a safetensors file."""
        splits = {"training": self.training.int(), "validation": self.validation.int()}
        write_whole(file, lambda temporary: save_file(splits, temporary))

    @classmethod
    def load(cls, file: Path) -> Corpus:
        """Read what `save` wrote.

        Raises:
            TrainingError: the file is missing, damaged or holds something else.
        """
        try:
            with safe_open(file, framework="pt") as stored:
                corpus = cls(stored.get_tensor("training"), stored.get_tensor("validation"))
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{file}: cannot be read: {error}") from None
        for ids in (corpus.training, corpus.validation):
            if ids.dtype != torch.int32 or ids.ndim != 1:
                raise TrainingError(
                    f"{file}: holds {ids.dtype} {list(ids.shape)}",
                    fix="token ids are a row of int32",
                )
            if len(ids) == 0 or ids.min() < 0:
                raise TrainingError(
                    f"{file}: {'holds no tokens' if len(ids) == 0 else 'has a negative token id'}",
                    fix="both splits are rows of token ids",
                )
        return corpus

    def largest_id(self) -> int:
        """Of both splits."""
        return int(max(self.training.max(), self.validation.max()))


def train_tokenizer(files: Sequence[TextFile], vocabulary_size: int) -> Tokenizer:
    """Train a byte-level BPE on the files.

    Raises:
        TrainingError: the vocabulary cannot hold every byte, or the text is too small for it.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocabulary_size <= len(alphabet):
        raise TrainingError(
            f"vocab_size is {vocabulary_size}",
            fix=f"a byte-level tokenizer needs at least {len(alphabet) + 1}",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator((file.text for file in files), trainer)
    if tokenizer.get_vocab_size() != vocabulary_size:
        raise TrainingError(
            f"the text yields {tokenizer.get_vocab_size()} tokens, vocab_size is {vocabulary_size}",
            fix="give more text or a smaller vocabulary",
        )
    return tokenizer


def encode_corpus(files: Sequence[TextFile], tokenizer: Tokenizer) -> Corpus:
    """Encode the files, one after the other, and hold out every tenth span.

    Of every ten spans of 16,384 tokens (shorter where the text is short) the sixth is held out.

    Raises:
        TrainingError: there is too little text to hold any out.
    """
    separator = tokenizer.token_to_id(END_OF_TEXT)
    ids: list[int] = []
    for file in files:
        pieces = [
            file.text[start : start + _PIECE_CHARACTERS]
            for start in range(0, len(file.text), _PIECE_CHARACTERS)
        ]
        for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False):
            ids.extend(encoding.ids)
        if separator is not None:
            ids.append(separator)
    span_tokens = min(_SPAN_TOKENS, max(1, len(ids) // _HELD_OUT_EVERY))
    spans = torch.split(torch.tensor(ids), span_tokens)
    held_out = [span for number, span in enumerate(spans) if number % _HELD_OUT_EVERY == 5]
    kept = [span for number, span in enumerate(spans) if number % _HELD_OUT_EVERY != 5]
    if not held_out or not kept:
        raise TrainingError(f"the text is only {len(ids)} tokens long", fix="give more text")
    return Corpus(torch.cat(kept), torch.cat(held_out))
