"""The native tokenizer normalizes text to NFC as the `tokenizers` library does."""

from __future__ import annotations

import json
import sys
import unicodedata
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers

from tests.native.native_text import UNSUPPORTED, NativeError, NativeTokenizer, TextLibrary
from tests.native.tokenizer_examples import (
    LINES,
    byte_tokenizer,
    example,
    generated_texts,
    installed_texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NFC = normalizers.NFC()
CODE_POINTS = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
SYLLABLES = range(0xAC00, 0xD7A4)
LEADS, VOWELS, FINALS = range(0x1100, 0x1113), range(0x1161, 0x1176), range(0x11A8, 0x11C3)
DECOMPOSED = [
    unicodedata.normalize("NFD", chr(code))
    for code in CODE_POINTS
    if code not in SYLLABLES and unicodedata.normalize("NFD", chr(code)) != chr(code)
]
# Whatever moves, changes, joins or is joined to, and one of what does none of it.
ACTIVE = sorted(
    {character for text in DECOMPOSED for character in text}
    | {chr(code) for code in CODE_POINTS if unicodedata.combining(chr(code))}
    | {one for text in DECOMPOSED if len(one := unicodedata.normalize("NFC", text[:-1])) == 1}
    | {chr(code) for code in CODE_POINTS if not unicodedata.is_normalized("NFC", chr(code))}
    | {*map(chr, [0x10FF, *LEADS, 0x1113, 0x1160, *VOWELS, 0x1176])}
    | {*map(chr, [0x11A7, *FINALS, 0x11C3, *SYLLABLES[:60], SYLLABLES[-1], 0xD7A4])}
    | {*" a\n\u65e5\U0001f642"}
)
# Marks of seven classes on letters that compose with some of them, singletons, excluded ones.
FEW = (
    "aeAs \u0300\u0301\u0323\u0327\u0334\u0345\u031b\u0344\u0340\u00e9\u1e69\u212b\u2126"
    "\u0958\u0915\u093c\u094d\u1100\u1161\u11a8\uac00\uac01\u09c7\u09be\u0fb2\u0f71\u0f80"
    "\ufb1d\U0001d15e\U0001d165\U0002f800\u3099\u304b\u1df6"
)
TEXTS = st.text(
    st.one_of(
        st.sampled_from(FEW),
        st.sampled_from(ACTIVE),
        st.characters(exclude_categories=["Cs"]),
    )
)


@pytest.fixture(scope="module")
def library(native_library: Path) -> TextLibrary:
    return TextLibrary(native_library)


@pytest.fixture(scope="module")
def native(library: TextLibrary) -> NativeTokenizer:
    return NativeTokenizer.parse(library, byte_tokenizer().to_str())


def normalized(native: NativeTokenizer, text: str) -> str:
    return native.decode(native.encode(text))


def assert_same(native: NativeTokenizer, texts: Iterable[str]) -> None:
    """Compares texts, each as if it stood alone."""
    whole = "\0".join(texts)
    native_result, expected = normalized(native, whole), NFC.normalize_str(whole)
    if native_result != expected:
        for text, one, other in zip(
            whole.split("\0"), native_result.split("\0"), expected.split("\0"), strict=True
        ):
            assert ascii(one) == ascii(other), ascii(text)


def test_every_character_alone_and_between_a_letter_and_marks(native: NativeTokenizer) -> None:
    for start in range(0, len(CODE_POINTS), 50_000):
        characters = map(chr, CODE_POINTS[start : start + 50_000])
        assert_same(native, (f"{one}\0a{one}\u0323" for one in characters))


def test_every_active_character_among_marks(native: NativeTokenizer) -> None:
    contexts = "{0}{0}\0\u00e9{0}\u0327\0a\u0301{0}\u0323\0a\u0345{0}\u0334{0}\0\uac00{0}\u11a8"
    for start in range(0, len(ACTIVE), 1000):
        assert_same(native, map(contexts.format, ACTIVE[start : start + 1000]))


def test_every_pair_that_joins_or_nearly_does(native: NativeTokenizer) -> None:
    firsts = sorted({unicodedata.normalize("NFC", text[:-1]) for text in DECOMPOSED} - {""})
    lasts = sorted({text[-1] for text in DECOMPOSED if len(text) > 1})
    assert len(firsts) > 300
    assert len(lasts) > 60
    for first in firsts:
        assert_same(native, (first + last for last in lasts))


def test_every_hangul_syllable(native: NativeTokenizer) -> None:
    ends = ["", *map(chr, FINALS)]
    spelled = [chr(lead) + chr(vowel) + end for lead, vowel, end in product(LEADS, VOWELS, ends)]
    syllables = "\0".join(map(chr, SYLLABLES))
    assert normalized(native, "\0".join(spelled)) == syllables
    assert normalized(native, syllables) == syllables
    assert_same(native, (f"{one}\u11a7{one}\u11a8" for one in map(chr, SYLLABLES)))


def test_every_three_of_a_few(native: NativeTokenizer) -> None:
    for first in FEW:
        assert_same(native, (f"{first}{second}{third}" for second in FEW for third in FEW))


@settings(max_examples=3000, deadline=None)
@given(TEXTS)
def test_any_text(native: NativeTokenizer, text: str) -> None:
    assert normalized(native, text) == NFC.normalize_str(text)


@settings(max_examples=1500, deadline=None)
@given(st.text(st.sampled_from(FEW), min_size=8, max_size=60))
def test_any_text_of_a_few(native: NativeTokenizer, text: str) -> None:
    assert normalized(native, text) == NFC.normalize_str(text)


@pytest.mark.parametrize(
    "text",
    [
        *("\u0301" * 50_000, "e" + "\u0301" * 50_000, "a" + "\u0323\u0301" * 30_000),
        "a" + "".join(chr(0x34F - place) for place in range(70)) * 500,
        *("\u1161" * 40_000, "\uac00" + "\u11a8" * 40_000, "\u0958" * 30_000),
    ],
    ids=lambda text: ascii(text[:3]),
)
def test_long_runs(native: NativeTokenizer, text: str) -> None:
    # Quadratic time would take minutes for each of these.
    assert normalized(native, text) == NFC.normalize_str(text)


def test_nothing_is_normalized_unasked(library: TextLibrary) -> None:
    tokenizer = json.loads(byte_tokenizer().to_str())
    for normalizer in (None, {"type": "Sequence", "normalizers": []}):
        tokenizer["normalizer"] = normalizer
        plain = NativeTokenizer.parse(library, json.dumps(tokenizer))
        assert normalized(plain, "".join(DECOMPOSED)) == "".join(DECOMPOSED)


@pytest.mark.parametrize("name", ["gpt-neox", "qwen2-composed"])
def test_tokenizers_that_normalize_give_the_same_ids(library: TextLibrary, name: str) -> None:
    tokenizer = example(name)
    native = NativeTokenizer.parse(library, tokenizer.to_str())
    texts = installed_texts(0.3) + generated_texts(200, 23) + LINES
    assert len({NFC.normalize_str(line) == line for line in LINES}) == 2
    for text in texts:
        decomposed = unicodedata.normalize("NFD", text)
        assert native.encode(decomposed) == tokenizer.encode(decomposed).ids


# Contents and texts of a few characters, so that tokens meet, overlap, and become the same.
SCRAPS = st.lists(
    st.sampled_from(["e", "\u0301", "\u00e9", "\u0323", "\u1eb9", "a", " ", "\u212b", "A\u030a"]),
    min_size=1,
    max_size=3,
).map("".join)
FLAGS = st.fixed_dictionaries(
    {
        name: st.booleans() if name == "normalized" else st.sampled_from([False, False, True])
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    }
)
ADDED = st.lists(
    # The library panics at a token of spaces with lstrip, where another token took those spaces.
    st.tuples(SCRAPS, FLAGS).filter(lambda token: token[0].strip() or not token[1]["lstrip"]),
    max_size=5,
    unique_by=lambda token: token[0],
)


@settings(max_examples=1500, deadline=None)
@given(ADDED, st.lists(SCRAPS, max_size=8).map("".join))
def test_added_tokens_are_found_before_or_after_as_the_library_does(
    library: TextLibrary, added: list[tuple[str, dict[str, Any]]], text: str
) -> None:
    tokenizer = byte_tokenizer()
    for content, flags in added:
        tokenizer.add_tokens([AddedToken(content, **flags)])
    sought = [NFC.normalize_str(content) for content, flags in added if flags["normalized"]]
    document = tokenizer.to_str()
    if len(set(sought)) < len(sought):
        # The library finds one of the two, another one in another process.
        with pytest.raises(NativeError, match="added_tokens has two tokens that become") as caught:
            NativeTokenizer.parse(library, document)
        assert caught.value.status == UNSUPPORTED
        return
    native = NativeTokenizer.parse(library, document)
    ids = native.encode(text)
    assert ids == Tokenizer.from_str(document).encode(text).ids
    everything = range(native.vocabulary_size)
    for skip_special_tokens in (False, True):
        expected = tokenizer.decode(everything, skip_special_tokens=skip_special_tokens)
        assert native.decode(everything, skip_special_tokens=skip_special_tokens) == expected
    for content, _ in added:
        assert native.find(content) == tokenizer.token_to_id(content)
