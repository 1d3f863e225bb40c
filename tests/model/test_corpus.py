"""Training text becomes a tokenizer, token ids and a held-out split."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from molkv_model.corpus import END_OF_TEXT, TextFile, encode_corpus, train_tokenizer
from molkv_model.errors import TrainingError
from molkv_runtime import session

if TYPE_CHECKING:
    from pathlib import Path


def text_file(words: int = 4000, name: str = "a.txt", seed: int = 0) -> TextFile:
    chosen = random.Random(seed)  # noqa: S311 - text, not a secret
    vocabulary = ["".join(chosen.choices("abcdefghij", k=4)) for _ in range(200)]
    return TextFile(name, " ".join(chosen.choices(vocabulary, k=words)), "")


def counting_tokenizer(count: int) -> Tokenizer:
    """A token for each of the words 0, 1, 2 ..., whose id is the number."""
    tokenizer = Tokenizer(models.WordLevel({str(n): n for n in range(count)}, unk_token="0"))  # noqa: S106 - a token, not a secret
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def counting_file(count: int) -> TextFile:
    return TextFile("count.txt", " ".join(map(str, range(count))), "")


@pytest.mark.parametrize("size", [257, 300, 400])
def test_the_vocabulary_has_exactly_the_size_asked_for(size: int) -> None:
    tokenizer = train_tokenizer([text_file()], size)
    assert tokenizer.get_vocab_size() == size
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert tokenizer.token_to_id(END_OF_TEXT) == 0


def test_a_trained_tokenizer_gives_any_text_back() -> None:
    tokenizer = train_tokenizer([text_file()], 300)
    for text in ("abcd efgh", "  Ünï çødé\n\t漢字 🙂", "\x00\x7f"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_same_text_trains_the_same_tokenizer() -> None:
    first, second = (train_tokenizer([text_file()], 350).to_str() for _ in range(2))
    assert first == second


def test_a_vocabulary_that_cannot_hold_every_byte_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"vocab_size is 256 \(.*at least 257"):
        train_tokenizer([text_file()], 256)


def test_too_little_text_for_the_vocabulary_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"yields \d+ tokens, vocab_size is 4096") as raised:
        train_tokenizer([text_file(50)], 4096)
    assert "more text" in raised.value.fix


def test_too_little_text_to_hold_any_out_is_refused() -> None:
    with pytest.raises(TrainingError, match="only 5 tokens long") as raised:
        encode_corpus([counting_file(5)], counting_tokenizer(5))
    assert raised.value.fix


@pytest.mark.parametrize("count", [6, 100, 12_345])
def test_every_token_is_in_one_of_the_splits_and_in_order(count: int) -> None:
    corpus = encode_corpus([counting_file(count)], counting_tokenizer(count))
    assert corpus.training.dtype == corpus.validation.dtype == torch.int64
    training, validation = corpus.training.tolist(), corpus.validation.tolist()
    assert training == sorted(training)
    assert validation == sorted(validation)
    assert sorted(training + validation) == list(range(count))


def test_a_tenth_of_a_long_text_is_held_out_in_spans_of_16384_tokens() -> None:
    span, count = 16_384, 16_384 * 20
    file = TextFile("x", "0 " * (span * 5) + "1 " * span + "2 " * (count - 6 * span), "")
    corpus = encode_corpus([file], counting_tokenizer(3))
    assert len(corpus.validation) == 2 * span
    assert corpus.validation[:span].unique().tolist() == [1]
    assert corpus.validation[span:].unique().tolist() == [2]


def test_the_split_is_the_same_every_time() -> None:
    files = [text_file(2000), text_file(3000, "b.txt", 1)]
    tokenizer = train_tokenizer(files, 300)
    first, second = encode_corpus(files, tokenizer), encode_corpus(files, tokenizer)
    assert torch.equal(first.training, second.training)
    assert torch.equal(first.validation, second.validation)


def test_files_are_separated_by_the_end_of_text() -> None:
    files = [text_file(500), text_file(500, "b.txt", 1), text_file(500, "c.txt", 2)]
    corpus = encode_corpus(files, train_tokenizer(files, 300))
    assert int((torch.cat([corpus.training, corpus.validation]) == 0).sum()) == 3


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    content = "Grüße\r\n".encode()
    (tmp_path / "a.txt").write_bytes(content)
    file = TextFile.read(tmp_path / "a.txt")
    assert (file.name, file.text) == ("a.txt", "Grüße\r\n")
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"plain text \xff more")
    with pytest.raises(TrainingError, match=r"a\.txt: byte 11 is not UTF-8 \(convert"):
        TextFile.read(tmp_path / "a.txt")


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_a_file_without_text_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.txt: holds no text"):
        TextFile.read(tmp_path / "a.txt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"a\.txt: cannot be read: No such file"):
        TextFile.read(tmp_path / "a.txt")


def test_the_runtime_stops_at_the_token_that_ends_a_training_text() -> None:
    assert session._END_OF_TEXT == END_OF_TEXT
