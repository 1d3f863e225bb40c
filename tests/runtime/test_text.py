"""Streaming text: the parts add up to the full decode, and no character is ever cut in two."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from molkv_runtime.errors import TokenIdError, TokenizerError
from molkv_runtime.text import TextStream, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

REPLACEMENT = "\ufffd"
CORPUS = [
    "the quick brown fox jumps over the lazy dog, the dog sleeps",
    "caf\u00e9 na\u00efve e\u0301 a\u0308\u0323 \u65e5\u672c\u8a9e \u4e2d\u6587 \ud55c\uad6d\uc5b4",
    "\U0001f642\U0001f643 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \ufffd",
]
TEXTS = st.text(
    st.one_of(
        st.sampled_from(sorted(set("".join(CORPUS)))),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=30,
)


def byte_level_tokenizer() -> Tokenizer:
    """A byte-level BPE with merges, special tokens and added tokens outside the alphabet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|\u7d42\u308f\u308a|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    # A token with a space and one in Latin-1: the decoder takes the first as text, and the
    # characters of the second for bytes.
    tokenizer.add_tokens(
        ["two words", "\u00e9\u00e8", AddedToken("\u65e5\u672c", normalized=False)]
    )
    return tokenizer


@cache
def shared_tokenizer() -> Tokenizer:
    return byte_level_tokenizer()


def id_of(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


@cache
def byte_tokens() -> dict[int, int]:
    """The id of each single byte's token, found by asking the library's own pre-tokenizer."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    characters: dict[int, str] = {}
    # These characters' UTF-8 forms hold every byte that valid UTF-8 can hold.
    for code in (*range(0x800), *range(0x800, 0xD800, 0x800), *range(0xE000, 0x110000, 0x800)):
        ((piece, _),) = level.pre_tokenize_str(chr(code))
        characters.update(zip(chr(code).encode(), piece, strict=True))
    # The other bytes are printable in Latin-1, and such bytes stand for themselves.
    characters.update({byte: chr(byte) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))})
    return {byte: id_of(shared_tokenizer(), characters[byte]) for byte in range(256)}


def ids_of_bytes(content: bytes) -> list[int]:
    return [byte_tokens()[byte] for byte in content]


IDS = st.lists(
    st.one_of(
        st.integers(0, 350),  # the last few ids have no token
        st.sampled_from([0x80, 0xBF, 0x9F, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0x41]).map(
            lambda byte: byte_tokens()[byte]
        ),
    ),
    max_size=24,
)


def streamed(stream: TextStream, token_ids: Sequence[int]) -> list[str]:
    return [*(stream.push(token_id) for token_id in token_ids), stream.finish()]


@settings(max_examples=500, deadline=None)
@given(IDS, st.booleans())
@example([], False)
def test_pushes_and_finish_together_are_the_full_decode(
    token_ids: list[int], skip_special_tokens: bool
) -> None:
    tokenizer = shared_tokenizer()
    stream = TextStream(tokenizer, skip_special_tokens=skip_special_tokens)
    whole = tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)
    assert "".join(streamed(stream, token_ids)) == whole


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example("\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f1e9\U0001f1ea")
@example("e\u0301a\u0308\u0323")
@example("\ufffd")
def test_valid_text_streams_without_a_replacement_character(text: str) -> None:
    token_ids = shared_tokenizer().encode(text).ids
    parts = streamed(TextStream(shared_tokenizer()), token_ids)
    assert "".join(parts) == shared_tokenizer().decode(token_ids, skip_special_tokens=False)
    assert "".join(parts).count(REPLACEMENT) <= text.count(REPLACEMENT) + text.count("\u00e9\u00e8")


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_text_byte_by_byte_streams_character_by_character(text: str) -> None:
    stream = TextStream(shared_tokenizer())
    for character in text:
        *early, last = [stream.push(token_id) for token_id in ids_of_bytes(character.encode())]
        assert early == [""] * len(early)
        assert last == character
    assert stream.finish() == ""


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=20))
def test_at_most_one_unfinished_character_is_held_back(content: bytes) -> None:
    stream = TextStream(shared_tokenizer())
    handed_out = ""
    for count, token_id in enumerate(ids_of_bytes(content), start=1):
        handed_out += stream.push(token_id)
        so_far = content[:count].decode("utf-8", errors="replace")
        held_back = so_far.removeprefix(handed_out)
        assert handed_out + held_back == so_far
        # 0xED 0xA0..0xBF begins half a surrogate pair, which UTF-8 forbids: two invalid parts,
        # both of which wait for the next byte.
        begins_surrogate = content[:count][-2:-1] == b"\xed" and 0xA0 <= content[count - 1] < 0xC0
        assert held_back in ("", REPLACEMENT, REPLACEMENT * 2 if begins_surrogate else "")


def test_every_single_byte_and_pair_of_lead_bytes_decodes_as_the_library_does() -> None:
    for first in range(256):
        for rest in (b"", b"\x80", b"\xa0\x80", b"\x90\x80\x80", b"\xe2\x82", b"A"):
            token_ids = ids_of_bytes(bytes([first]) + rest)
            whole = shared_tokenizer().decode(token_ids, skip_special_tokens=False)
            assert "".join(streamed(TextStream(shared_tokenizer()), token_ids)) == whole


def test_an_incomplete_tail_becomes_one_replacement_character() -> None:
    for kept in (1, 2, 3):
        token_ids = ids_of_bytes("\U0001f642".encode()[:kept])
        assert streamed(TextStream(shared_tokenizer()), token_ids) == [""] * kept + [REPLACEMENT]


def test_a_final_replacement_character_is_shown_at_once() -> None:
    stream = TextStream(shared_tokenizer())
    # A byte that can begin no character, then one that was begun and cannot go on.
    assert [stream.push(token_id) for token_id in ids_of_bytes(b"\xff\xe2\xe2")] == [
        REPLACEMENT,
        "",
        REPLACEMENT,
    ]


def calls_of(work: Callable[[], object]) -> int:
    """Function calls that `work` makes, of Python functions and of built-in ones."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_a_long_run_of_invalid_bytes_is_shown_as_it_comes_with_equal_work_for_each() -> None:
    # The library's own stream holds all of it back, and looks at all of it again each time.
    token_ids = ids_of_bytes(b"\x80" * 50_000)
    stream = TextStream(shared_tokenizer())
    assert [stream.push(token_id) for token_id in token_ids] == [REPLACEMENT] * 50_000
    early, late = (calls_of(lambda: stream.push(token_ids[0])) for _ in range(2))
    fresh = TextStream(shared_tokenizer())
    assert early == late == calls_of(lambda: fresh.push(token_ids[0]))


def test_special_tokens_are_shown_by_default_and_left_out_on_request() -> None:
    tokenizer = shared_tokenizer()
    token_ids = tokenizer.encode("dog<|endoftext|>the<|\u7d42\u308f\u308a|>").ids
    shown = "".join(streamed(TextStream(tokenizer), token_ids))
    hidden = "".join(streamed(TextStream(tokenizer, skip_special_tokens=True), token_ids))
    assert shown == "dog<|endoftext|>the<|\u7d42\u308f\u308a|>"
    assert hidden == "dogthe"


def test_ids_of_a_padded_vocabulary_decode_to_nothing() -> None:
    inside = shared_tokenizer().encode("dog").ids
    assert "".join(streamed(TextStream(shared_tokenizer()), [50_000, *inside, 2**32 - 1])) == "dog"


@pytest.mark.parametrize("token_id", [-1, 2**32])
def test_an_id_that_no_tokenizer_can_hold_is_refused(token_id: int) -> None:
    with pytest.raises(TokenIdError, match=str(token_id)):
        TextStream(shared_tokenizer()).push(token_id)
    with pytest.raises(TokenIdError, match=str(token_id)):
        TextStream(shared_tokenizer(), prompt_ids=[token_id])


@settings(max_examples=200, deadline=None)
@given(IDS, IDS)
def test_a_prompts_own_text_is_not_handed_out(prompt_ids: list[int], token_ids: list[int]) -> None:
    tokenizer = shared_tokenizer()
    prompt_stream = TextStream(tokenizer)
    prompt = "".join(prompt_stream.push(token_id) for token_id in prompt_ids)
    parts = streamed(TextStream(tokenizer, prompt_ids=prompt_ids), token_ids)
    whole = tokenizer.decode(prompt_ids + token_ids, skip_special_tokens=False)
    assert prompt + "".join(parts) == whole


def test_a_character_begun_by_the_prompt_is_handed_out_whole() -> None:
    smile = ids_of_bytes("\U0001f642".encode())
    prompt_ids = [*shared_tokenizer().encode("the dog").ids, *smile[:2]]
    stream = TextStream(shared_tokenizer(), prompt_ids=prompt_ids)
    assert streamed(stream, smile[2:]) == ["", "\U0001f642", ""]


def test_after_finish_the_stream_starts_afresh() -> None:
    stream = TextStream(shared_tokenizer())
    half = ids_of_bytes("\U0001f642".encode()[:2])
    assert streamed(stream, half)[-1] == REPLACEMENT
    assert streamed(stream, ids_of_bytes(b"\x99\x82A")) == [REPLACEMENT, REPLACEMENT, "A", ""]


# Decoders that are not byte-level


@cache
def byte_fallback_tokenizer() -> Tokenizer:
    """The decoder of SentencePiece models: bytes as <0x..>, and a first space that is dropped."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581the", "\u2581dog", "s"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))  # noqa: S106
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def test_another_decoder_streams_words_with_the_right_spaces() -> None:
    tokenizer = byte_fallback_tokenizer()
    token_ids = [id_of(tokenizer, piece) for piece in ("\u2581the", "\u2581dog", "s")]
    assert streamed(TextStream(tokenizer), token_ids) == ["the", " dog", "s", ""]
    after_prompt = TextStream(tokenizer, prompt_ids=token_ids[:1])
    assert streamed(after_prompt, token_ids[1:]) == [" dog", "s", ""]


def test_another_decoder_streams_whole_characters_and_an_incomplete_tail() -> None:
    tokenizer = byte_fallback_tokenizer()
    token_ids = [id_of(tokenizer, "\u2581dog")]
    token_ids += [id_of(tokenizer, f"<0x{byte:02X}>") for byte in "\U0001f642".encode()]
    assert streamed(TextStream(tokenizer), token_ids) == ["dog", "", "", "", "\U0001f642", ""]
    assert "".join(streamed(TextStream(tokenizer), token_ids[:-1])) == tokenizer.decode(
        token_ids[:-1]
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 259), max_size=12))
def test_another_decoder_gives_the_full_decode_or_says_that_it_cannot(token_ids: list[int]) -> None:
    tokenizer = byte_fallback_tokenizer()
    try:
        parts = streamed(TextStream(tokenizer), token_ids)
    except TokenizerError as error:
        assert "rewrites text" in error.problem  # noqa: PT017 - either outcome is right
    else:
        assert "".join(parts) == tokenizer.decode(token_ids, skip_special_tokens=False)


# Loading


def saved(folder: Path, change: dict[str, Any] | None = None) -> Path:
    path = folder / "tokenizer.json"
    content = json.loads(byte_level_tokenizer().to_str())
    path.write_text(json.dumps(content | (change or {})), encoding="utf-8")
    return path


def test_a_saved_tokenizer_loads_and_decodes_the_same(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path))
    token_ids = tokenizer.encode(CORPUS[1]).ids
    assert token_ids == shared_tokenizer().encode(CORPUS[1]).ids
    assert "".join(streamed(TextStream(tokenizer), token_ids)) == CORPUS[1]


def test_a_vocabulary_up_to_the_models_is_accepted(tmp_path: Path) -> None:
    size = shared_tokenizer().get_vocab_size()
    assert load_tokenizer(saved(tmp_path), size).get_vocab_size() == size
    assert load_tokenizer(saved(tmp_path), size + 47).get_vocab_size() == size


def test_a_vocabulary_larger_than_the_models_is_refused_with_both_figures(tmp_path: Path) -> None:
    size = shared_tokenizer().get_vocab_size()
    with pytest.raises(TokenizerError, match=f"{size} ids.*one of {size - 1}") as caught:
        load_tokenizer(saved(tmp_path), size - 1)
    assert "trained with" in caught.value.fix


def test_a_gap_in_the_ids_counts_towards_the_vocabulary(tmp_path: Path) -> None:
    alphabet = {"a": 0, "b": 99}
    model: dict[str, Any] = {"type": "BPE", "vocab": alphabet, "merges": [], "unk_token": None}
    path = saved(tmp_path, {"model": model, "added_tokens": []})
    assert load_tokenizer(path, 100).get_vocab_size() == 2
    with pytest.raises(TokenizerError, match=r"100 ids.*one of 99"):
        load_tokenizer(path, 99)


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path: Path) -> None:
    shortening = byte_level_tokenizer()
    shortening.enable_truncation(3)
    shortening.enable_padding(length=200)
    path = tmp_path / "tokenizer.json"
    shortening.save(str(path))
    token_ids = load_tokenizer(path).encode(CORPUS[0]).ids
    assert token_ids == shared_tokenizer().encode(CORPUS[0]).ids


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing.json"
    with pytest.raises(TokenizerError, match="does not exist") as caught:
        load_tokenizer(path)
    assert str(path) in caught.value.problem


def test_a_folder_is_not_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be read: Is a directory"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b'{"model":', "is not JSON"),
        (b"\xff\xfe{}", "byte 0 is not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "is JSON, but no tokenizer"),
        (b'["a"]', "is JSON, but no tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', "no tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}', "no tokenizer"),
    ],
)
def test_a_broken_file_is_refused_with_its_path_and_what_is_wrong(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=problem) as caught:
        load_tokenizer(path)
    assert str(path) in caught.value.problem
    assert caught.value.fix
