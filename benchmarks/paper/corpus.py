"""The study's corpus: passages, a split that no near-duplicate crosses, a tokenizer, token ids.

A passage is held out by the hash of its content, so copies of it always fall on the same side. A
held-out passage that shares much with the training text is dropped altogether.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.paper.errors import StudyError
from benchmarks.paper.sources import SOURCES, Document, fetch
from molkv_model.corpus import END_OF_TEXT, Corpus, TextFile, train_tokenizer
from molkv_model.weight_files import write_whole

__all__ = ["CorpusFacts", "Passage", "build_corpus", "cut_passages", "shared_shares", "split"]

logger = logging.getLogger(__name__)

PASSAGE_CHARACTERS = 4000
HELD_OUT_OF_256 = 6
"""Passages whose content's hash begins with a byte below this are held out: 2.3 %."""
NGRAM_WORDS = 8
MOST_SHARED = 0.05
_TOKENIZER_EVERY = 4
"""Every fourth passage is what the tokenizer is trained on, which is enough for its merges."""


@dataclass(frozen=True)
class Passage:
    """Some paragraphs that follow one another.

    Attributes:
        document: the document's name.
        number: its place there, from 0.
        text: about 4,000 characters.
    """

    document: str
    number: int
    text: str

    @property
    def is_candidate(self) -> bool:
        """Whether its content's hash would hold it out."""
        words = " ".join(_words(self.text))
        return hashlib.sha256(words.encode()).digest()[0] < HELD_OUT_OF_256

    def continues(self, other: Passage) -> bool:
        """Whether it begins where the other ends."""
        return (self.document, self.number) == (other.document, other.number + 1)


@dataclass(frozen=True)
class CorpusFacts:
    """What a corpus is made of, as ``corpus.json`` keeps it.

    Attributes:
        digest: sha256 of the file of token ids.
        vocabulary: token ids.
        bytes: of the text, by source.
        training_tokens: in the training split.
        validation_tokens: in the held-out split.
        held_out: passages in it.
        near_duplicates: candidates dropped because they share too much with the training text.
    """

    digest: str
    vocabulary: int
    bytes: dict[str, int]
    training_tokens: int
    validation_tokens: int
    held_out: int
    near_duplicates: int

    @classmethod
    def read(cls, folder: Path) -> CorpusFacts:
        """Of a corpus that was built.

        Raises:
            StudyError: it was not, or its facts are damaged.
        """
        file = folder / "corpus.json"
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StudyError(
                f"{file}: cannot be read: {error}",
                fix="remove the folder, and build it with `python -m benchmarks.paper corpus ROW`",
            ) from None


def build_corpus(folder: Path, downloads: Path, vocabulary: int) -> CorpusFacts:
    """Fetch the sources and write tokenizer.json, tokens.safetensors and corpus.json.

    Does nothing where corpus.json, which is written last, is there already.
    """
    if (folder / "corpus.json").is_file():
        return CorpusFacts.read(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    passages: list[Passage] = []
    for source in SOURCES:
        logger.info("fetching %s", source.name)
        fetch(source, downloads)
        found = list(source.documents(downloads))
        sizes[source.name] = sum(len(document.text.encode()) for document in found)
        passages += cut_passages(found)
    logger.info("looking for near-duplicates among %d passages", len(passages))
    training, held_out, dropped = split(passages)
    logger.info("training a tokenizer of %d tokens", vocabulary)
    sample = [TextFile("", passage.text, "") for passage in training[::_TOKENIZER_EVERY]]
    tokenizer = train_tokenizer(sample, vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    logger.info("encoding")
    corpus = Corpus(_encode(training, tokenizer), _encode(held_out, tokenizer))
    corpus.save(folder / "tokens.safetensors")
    facts = CorpusFacts(
        digest=hashlib.sha256((folder / "tokens.safetensors").read_bytes()).hexdigest(),
        vocabulary=vocabulary,
        bytes=sizes,
        training_tokens=len(corpus.training),
        validation_tokens=len(corpus.validation),
        held_out=len(held_out),
        near_duplicates=dropped,
    )
    content = json.dumps(asdict(facts), indent=2) + "\n"
    write_whole(folder / "corpus.json", lambda file: file.write_text(content, encoding="utf-8"))
    return facts


def cut_passages(documents: Iterable[Document]) -> Iterator[Passage]:
    """Cut documents at the first line end after every 4,000 characters."""
    for document in documents:
        start = number = 0
        while start < len(document.text):
            end = document.text.find("\n", start + PASSAGE_CHARACTERS)
            end = len(document.text) if end < 0 else end + 1
            if document.text[start:end].strip():
                yield Passage(document.name, number, document.text[start:end])
            start, number = end, number + 1


def split(passages: Sequence[Passage]) -> tuple[list[Passage], list[Passage], int]:
    """Training passages, held-out passages, and how many near-duplicates were dropped."""
    training: list[Passage] = []
    candidates: list[Passage] = []
    for passage in passages:
        (candidates if passage.is_candidate else training).append(passage)
    shares = shared_shares(
        [passage.text for passage in candidates], [passage.text for passage in training]
    )
    held_out = [
        passage for passage, share in zip(candidates, shares, strict=True) if share <= MOST_SHARED
    ]
    return training, held_out, len(candidates) - len(held_out)


def shared_shares(candidates: Sequence[str], others: Sequence[str]) -> list[float]:
    """For each candidate, the share of its runs of 8 words that occur in the others.

    Words are compared without case and punctuation. Runs are compared by 64-bit hashes.
    """
    known = np.unique(np.concatenate([_ngrams(text) for text in others] or [_ngrams("")]))
    shares = []
    for text in candidates:
        runs = _ngrams(text)
        place = np.minimum(np.searchsorted(known, runs), len(known) - 1)
        shares.append(float((known[place] == runs).mean()) if len(runs) and len(known) else 0.0)
    return shares


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _ngrams(text: str) -> NDArray[np.uint64]:
    """A hash of every run of words."""
    words = np.array([_word_hash(word) for word in _words(text)], np.uint64)
    count = max(0, len(words) - NGRAM_WORDS + 1)
    runs = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for place in range(NGRAM_WORDS):
            runs = runs * np.uint64(0x9E3779B97F4A7C15) + words[place : place + count]
            runs ^= runs >> np.uint64(29)
    return runs


_HASHES: dict[str, int] = {}


def _word_hash(word: str) -> int:
    if word not in _HASHES:
        _HASHES[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
    return _HASHES[word]


def _encode(passages: Sequence[Passage], tokenizer: Tokenizer) -> torch.Tensor:
    """int32 ids; an end of text wherever the next passage does not continue the last."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    parts: list[NDArray[np.int32]] = []
    last: Passage | None = None
    for first in range(0, len(passages), 512):
        batch = passages[first : first + 512]
        encodings = tokenizer.encode_batch_fast([passage.text for passage in batch])
        for passage, encoding in zip(batch, encodings, strict=True):
            if last is not None and not passage.continues(last):
                parts.append(np.array([end], np.int32))
            parts.append(np.array(encoding.ids, np.int32))
            last = passage
    return torch.from_numpy(np.concatenate(parts))
