"""What the native tokenizer does not do exactly, it refuses by the name of the field."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.native.native_text import (
    FORMAT,
    INVALID_ARGUMENT,
    IO,
    UNSUPPORTED,
    NativeError,
    NativeTokenizer,
    TextLibrary,
)
from tests.native.tokenizer_examples import GPT2_EXPRESSION, GPT4_EXPRESSION, example

if TYPE_CHECKING:
    from pathlib import Path

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
SPLIT = {
    "type": "Split",
    "pattern": {"Regex": GPT2_EXPRESSION},
    "behavior": "Isolated",
    "invert": False,
}
ADDED = {
    "id": 5,
    "content": "<new>",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}
# Small enough to read, with every kind of field.
DOCUMENT: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [ADDED],
    "normalizer": None,
    "pre_tokenizer": {**BYTE_LEVEL, "use_regex": True},
    "post_processor": {**BYTE_LEVEL, "use_regex": True},
    "decoder": {**BYTE_LEVEL, "use_regex": True},
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4},
        "merges": [["a", "b"], ["ab", "c"]],
    },
}
MISSING = object()
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
SPECIAL = {"SpecialToken": {"id": "<new>", "type_id": 0}}


def template(*single: dict[str, Any]) -> dict[str, Any]:
    """A post-processor that makes this of a text."""
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [TEXT, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<new>": {"id": "<new>", "ids": [5], "tokens": ["<new>"]}},
    }


@pytest.fixture(scope="module")
def library(native_library: Path) -> TextLibrary:
    return TextLibrary(native_library)


def changed(place: str, value: object) -> str:
    """The document with one field changed; the place is written a.b.0.c."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = [int(name) if name.isdigit() else name for name in place.split(".")]
    container: Any = document
    for name in parents:
        container = container[name]
    if value is MISSING:
        del container[last]
    elif isinstance(container, list) and last == len(container):
        container.append(value)
    else:
        container[last] = value
    return json.dumps(document)


def refusal(library: TextLibrary, content: str | bytes) -> NativeError:
    with pytest.raises(NativeError) as caught:
        NativeTokenizer.parse(library, content)
    message = str(caught.value)
    assert message.startswith("tokenizer: ")
    assert message.endswith(")"), "a refusal ends in what to do"
    return caught.value


def test_the_document_itself_is_read(library: TextLibrary) -> None:
    native = NativeTokenizer.parse(library, json.dumps(DOCUMENT))
    assert native.encode("abc<new>ab") == [4, 5, 2]
    assert (
        native.encode("abc<new>ab")
        == Tokenizer.from_str(json.dumps(DOCUMENT)).encode("abc<new>ab").ids
    )


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("model.type", "Unigram", 'model.type is "Unigram"'),
        ("model.type", "WordPiece", 'model.type is "WordPiece"'),
        ("model.dropout", 0.1, "model.dropout is 0.1"),
        ("model.unk_token", "c", 'model.unk_token is "c"'),
        ("model.continuing_subword_prefix", "##", 'model.continuing_subword_prefix is "##"'),
        ("model.end_of_word_suffix", "</w>", 'model.end_of_word_suffix is "</w>"'),
        ("model.byte_fallback", True, "model.byte_fallback is true"),
        ("model.max_length", 3, "model.max_length is 3, and no such field is known"),
        ("normalizer", {"type": "NFKC"}, 'normalizer.type is "NFKC"'),
        ("normalizer", {"type": "NFC", "strict": True}, "normalizer.strict is true"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
            'normalizer.normalizers[1].type is "Lowercase"',
        ),
        ("pre_tokenizer", {"type": "Whitespace"}, 'pre_tokenizer.type is "Whitespace"'),
        ("pre_tokenizer.flavor", [1, 2], "pre_tokenizer.flavor is an array of 2"),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [SPLIT]},
            "pre_tokenizer.pretokenizers is an array of 1",
        ),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, BYTE_LEVEL]},
            'pre_tokenizer.pretokenizers[0].type is "Digits"',
        ),
        (
            "pre_tokenizer",
            {"type": "Sequence", "pretokenizers": [SPLIT, {**BYTE_LEVEL, "use_regex": True}]},
            "pre_tokenizer.pretokenizers[1].use_regex is true",
        ),
        *(
            (
                "pre_tokenizer",
                {
                    "type": "Sequence",
                    "pretokenizers": [SPLIT | change, {**BYTE_LEVEL, "use_regex": False}],
                },
                f"pre_tokenizer.pretokenizers[0].{named}",
            )
            for change, named in (
                ({"pattern": {"Regex": r"\w+"}}, r'pattern.Regex is "\w+"'),
                ({"pattern": {"Regex": GPT4_EXPRESSION + "x"}}, 'pattern.Regex is "(?i:'),
                ({"pattern": {"String": " "}}, 'pattern.String is " "'),
                ({"behavior": "Removed"}, 'behavior is "Removed"'),
                ({"invert": True}, "invert is true"),
                ({"extra": "x" * 200}, 'extra is "xxx'),
            )
        ),
        ("decoder", {"type": "WordPiece"}, 'decoder.type is "WordPiece"'),
        ("post_processor", {"type": "BertProcessing"}, 'post_processor.type is "BertProcessing"'),
        ("post_processor", template(SPECIAL), "post_processor.single is an array of 1"),
        ("post_processor", template(TEXT, TEXT), "post_processor.single is an array of 2"),
        (
            "post_processor",
            template({"Sequence": {"id": "B", "type_id": 1}}),
            'post_processor.single[0].Sequence.id is "B"',
        ),
        ("post_processor", {**template(TEXT), "extra": 1}, "post_processor.extra is 1"),
        (
            "post_processor",
            {"type": "Sequence", "processors": [BYTE_LEVEL, {"type": "RobertaProcessing"}]},
            'post_processor.processors[1].type is "RobertaProcessing"',
        ),
        ("added_tokens.0.color", "red", 'added_tokens[0].color is "red"'),
        ("added_tokens.0.content", "x" * 1025, 'added_tokens[0].content is "xxx'),
        ("version", "2.0", 'version is "2.0"'),
        ("license", "MIT", 'license is "MIT", and no such field is known'),
    ],
)
def test_what_is_not_supported_is_named(
    library: TextLibrary, place: str, value: object, named: str
) -> None:
    error = refusal(library, changed(place, value))
    assert error.status == UNSUPPORTED
    assert named in str(error)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("model", MISSING, "model is missing"),
        ("model", 7, "model is 7, and must be an object"),
        ("model.vocab", MISSING, "model.vocab is missing"),
        ("model.vocab", [], "model.vocab is an array of 0"),
        ("model.vocab.a", -1, 'model.vocab["a"] is -1'),
        ("model.vocab.a", 1.0, 'model.vocab["a"] is 1.0'),
        ("model.vocab.a", 2**22, 'model.vocab["a"] is 4194304'),
        ("model.vocab.a", "0", 'model.vocab["a"] is "0"'),
        ("model.vocab.z", 1, 'model.vocab["z"] is 1, and must be an id that no other'),
        ("model.merges", {}, "model.merges is an object of 0"),
        ("model.merges.1", "ab", 'model.merges[1] is "ab", and must be two tokens'),
        ("model.merges.1", "a b c", 'model.merges[1] is "a b c"'),
        ("model.merges.1", ["a"], "model.merges[1] is an array of 1"),
        ("model.merges.1", ["a", 3], "model.merges[1] is an array of 2, and must be two"),
        ("model.merges.1", ["a", "z"], 'which lacks "z"'),
        ("model.merges.1", ["b", "a"], 'which lacks "ba"'),
        ("model.merges.2", ["a", "b"], "model.merges[2]"),
        ("model.ignore_merges", 1, "model.ignore_merges is 1, and must be true or false"),
        ("normalizer", "NFC", 'normalizer is "NFC", and must be an object'),
        ("normalizer", {"type": "Sequence"}, "normalizer.normalizers is missing"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": {}},
            "normalizer.normalizers is an object of 0, and must be an array",
        ),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [None]},
            "normalizer.normalizers[0] is null",
        ),
        ("post_processor", {"type": "TemplateProcessing"}, "post_processor.single is missing"),
        ("post_processor", {"type": "Sequence"}, "post_processor.processors is missing"),
        ("pre_tokenizer", None, "pre_tokenizer is missing"),
        ("pre_tokenizer.add_prefix_space", MISSING, "pre_tokenizer.add_prefix_space is missing"),
        ("decoder", None, "decoder is missing"),
        ("added_tokens", {}, "added_tokens is an object"),
        ("added_tokens.0.id", 6, "added_tokens[0].id is 6, and must be 5"),
        ("added_tokens.0.content", "c", "added_tokens[0].id is 5, and must be 3"),
        ("added_tokens.1", ADDED, "added_tokens[1].id is 5, and must be that of a new token"),
        ("added_tokens.0.special", "yes", 'added_tokens[0].special is "yes"'),
    ],
)
def test_what_is_damaged_is_named(
    library: TextLibrary, place: str, value: object, named: str
) -> None:
    error = refusal(library, changed(place, value))
    assert error.status == FORMAT
    assert named in str(error)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (
            "truncation",
            {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        ),
        (
            "padding",
            {
                "strategy": {"Fixed": 9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "a",
            },
        ),
        ("post_processor", None),
        ("post_processor", template(SPECIAL, TEXT)),
        ("post_processor", template(TEXT, SPECIAL, SPECIAL)),
        ("post_processor", {"type": "Sequence", "processors": []}),
        (
            "post_processor",
            {"type": "Sequence", "processors": [BYTE_LEVEL, template(SPECIAL, TEXT)]},
        ),
        ("normalizer", {"type": "NFC"}),
        ("normalizer", {"type": "Sequence", "normalizers": []}),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFC"}]}),
        ("model.type", MISSING),
        ("model.dropout", 0.0),
        ("model.fuse_unk", True),
        ("model.ignore_merges", MISSING),
        ("pre_tokenizer.use_regex", MISSING),
        ("version", MISSING),
        ("added_tokens.0.content", ""),
        ("added_tokens", MISSING),
    ],
)
def test_what_changes_no_result_is_read(library: TextLibrary, place: str, value: object) -> None:
    content = changed(place, value)
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = "abcab<new>cab"
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    assert NativeTokenizer.parse(library, content).encode(text) == expected


def other_tokenizers() -> dict[str, tuple[Tokenizer, str]]:
    """Tokenizers as the library writes them, and the first field that is refused."""
    named: dict[str, tuple[Tokenizer, str]] = {
        "unigram": (Tokenizer(models.Unigram([("a", 0.0)])), "model.type"),
        "word piece": (Tokenizer(models.WordPiece({"a": 0})), "model.type"),
        "word level": (Tokenizer(models.WordLevel({"a": 0})), "model.type"),
        "character level": (Tokenizer(models.BPE({"a": 0}, [])), "pre_tokenizer"),
    }
    for name, attribute, value in (
        ("metaspace", "pre_tokenizer", pre_tokenizers.Metaspace()),
        ("lower case", "normalizer", normalizers.Lowercase()),
        ("compatible", "normalizer", normalizers.NFKC()),
        ("byte normalizer", "normalizer", normalizers.ByteLevel()),
        ("fuse", "decoder", decoders.Fuse()),
        ("bert", "post_processor", processors.BertProcessing(("a", 0), ("b", 1))),
    ):
        tokenizer = Tokenizer.from_str(json.dumps(DOCUMENT))
        setattr(tokenizer, attribute, value)
        named[name] = (tokenizer, attribute)
    return named


@pytest.mark.parametrize("name", other_tokenizers())
def test_other_tokenizers_are_refused_by_name(library: TextLibrary, name: str) -> None:
    tokenizer, field = other_tokenizers()[name]
    error = refusal(library, tokenizer.to_str())
    assert str(error).startswith(f"tokenizer: {field}")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "byte 0: expected a value"),
        (b"[", "byte 1: expected a value"),
        (b"{}", "model is missing"),
        (b"[]", "the file is an array of 0"),
        (b'{"model": 1, "model": 2}', 'repeats the key "model"'),
        (b'{"a": "\xff"}', "byte 7: not UTF-8"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b'"\\ud800"', "surrogate"),
        (b"\xef\xbb\xbf{}", "byte 0"),
    ],
)
def test_what_is_not_json_is_refused_by_place(
    library: TextLibrary, content: bytes, named: str
) -> None:
    error = refusal(library, content)
    assert error.status == FORMAT
    assert named in str(error)


def test_every_beginning_of_a_file_is_refused(library: TextLibrary) -> None:
    content = json.dumps(DOCUMENT).encode()
    for end in range(len(content)):
        assert refusal(library, content[:end]).status == FORMAT


def test_files_are_named(library: TextLibrary, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(
        NativeError, match=r"tokenizer\.json: cannot be read: No such file"
    ) as caught:
        NativeTokenizer.open(library, path)
    assert caught.value.status == IO
    with pytest.raises(NativeError, match="cannot be read") as caught:
        NativeTokenizer.open(library, tmp_path)
    assert caught.value.status == IO
    path.write_text("{", encoding="utf-8")
    with pytest.raises(
        NativeError, match=r"tokenizer .*tokenizer.json: not JSON: byte 1"
    ) as caught:
        NativeTokenizer.open(library, path)
    assert caught.value.status == FORMAT
    path.write_text(example("gpt2-300").to_str(), encoding="utf-8")
    assert NativeTokenizer.open(library, path).vocabulary_size == 300


def test_null_pointers_are_refused(library: TextLibrary) -> None:
    for name, arguments in {
        "tokenizer_open": (None, None),
        "tokenizer_parse": (None, 0, None),
        "tokenizer_encode": (None, None, 0, None, None),
        "tokenizer_decode": (None, None, 0, 0, None, None),
        "text_stream_create": (None, 0, None),
        "text_stream_push": (None, 0, None, None),
        "text_stream_finish": (None, None, None),
        "sampler_create": (None, None),
        "sampler_sample": (None, None, 0, None),
    }.items():
        with pytest.raises(NativeError, match="is NULL") as caught:
            library.call(name, *arguments)
        assert caught.value.status == INVALID_ARGUMENT
    for name in ("tokenizer_close", "text_stream_free", "sampler_free", "sampler_reset"):
        library.plain(name, None)
    assert library.plain("tokenizer_vocabulary_size", None) == 0
    assert library.plain("tokenizer_find", None, b"a", 1) == -1
