"""Tokenizers and texts that the native tokenizer is compared with the `tokenizers` library on."""

from __future__ import annotations

import itertools
import json
import random
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

ROOT = Path(__file__).parents[2]
TINY_TOKENIZER = ROOT / "model" / "molkv_model" / "checkpoints" / "tiny" / "tokenizer.json"

GPT2_EXPRESSION = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_EXPRESSION = GPT4_EXPRESSION.replace("{1,3}", "")

# One line of each kind of text that the pieces of a pattern treat differently.
LINES = [
    "The quick brown fox jumps over the lazy dog, the dog sleeps; it's 1234567 o'clock.",
    "I'll he'd we've they're don't I'm 'S 'LL 'Ve 'RE 'M 'D 'T 's'''s ''ll '\u017f 'l 'v 'r",
    "caf\u00e9 na\u00efve e\u0301 a\u0308\u0323 \u1e9e stra\u00dfe \u01c5 \u0130\u0131",
    "\u65e5\u672c\u8a9e \u4e2d\u6587 \ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \u3042\u30a2\uff71",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e9\u05c1",
    "\U0001f642\U0001f643 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "1\ufe0f\u20e3 \u2764\ufe0f\u200d\U0001f525 \U0001f44d\U0001f3fd x\u200dy \u200d\u200d",
    "\u0661\u0662\u0663 \u00bd\u2167\u2460\u3289 \U0001d7d8 x\u00b2 0x1F 1,234.56 3\u20444",
    "\tif (a[i] != b) {\r\n\t\treturn  -1;   \r\n\t}\n\n\n  else   { }\n",
    "\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u0085\v\f \u200b\u180e\ufeff x\r\r\n\n\r y",
    "a\u00ad\u034f\ufffd\ufffe\U000e0001\U0010ffff\x00\x01\x7f\u0378\ue000 \U000f0000z",
    "\U00020000\U0002ebf0\U00031350 \U0001e900\U0001e922 \ua7cb\ua7da \U00010d40 \U00016d70",
    "----====****####    !!!???... <|endoftext|><|x|> two words \u00e9\u00e8 \u65e5\u672c",
]
CHARACTERS = sorted(set("".join(LINES)))


def trained(vocabulary_size: int, pre_tokenizer: Any, *, alphabet: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
        special_tokens=["<|endoftext|>", "<|\u7d42\u308f\u308a|>"],
        show_progress=False,
    )
    sources = sorted(Path(json.__file__).parent.rglob("*.py"))
    texts = LINES * 4 + [path.read_text(encoding="utf-8") for path in sources]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_level(*, space: bool = False, expression: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=expression)


def split(expression: str, *, space: bool = False) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), behavior="isolated"),
            byte_level(space=space, expression=False),
        ]
    )


def with_added_tokens() -> Tokenizer:
    """Added tokens of every kind: overlapping, inside each other, next to spaces and words."""
    tokenizer = trained(600, byte_level())
    tokenizer.add_special_tokens(["<|x|>", AddedToken("[L]", lstrip=True, special=True)])
    for content, options in {
        "[R]": {"rstrip": True, "normalized": False},
        "[B]": {"lstrip": True, "rstrip": True},
        " x": {"normalized": False},
        " ": {"single_word": True, "rstrip": True},
        "word": {"single_word": True, "normalized": False},
        "wo": {"single_word": True, "normalized": True},
        "words": {},
        "the": {},  # which the model has too
        "th": {"normalized": False},
        "\u00e9\u00e8": {},  # in the alphabet of bytes, but no token of the model
        "\u65e5\u672c": {"normalized": False},
        "\u65e5": {"single_word": True},
        "aab": {},
        "aa": {},
        "two words": {"lstrip": True},
    }.items():
        tokenizer.add_tokens([AddedToken(content, **options)])
    return tokenizer


def like_gpt_neox() -> Tokenizer:
    """NFC, GPT-2's cut, and runs of spaces as tokens that are looked for in normalized text."""
    tokenizer = trained(1200, byte_level())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    tokenizer.add_special_tokens(["<|padding|>"])
    return tokenizer


def like_qwen2() -> Tokenizer:
    """NFC and a cut by an expression of its own."""
    tokenizer = trained(1500, split(QWEN2_EXPRESSION))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


def like_llama3() -> Tokenizer:
    """Whole pieces, and a post-processor that puts a special token in front of each text."""
    tokenizer = with_whole_pieces(split(GPT4_EXPRESSION))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A",
                pair=f"{begin} $A {begin}:1 $B:1",
                special_tokens=[(begin, tokenizer.token_to_id(begin))],
            ),
        ]
    )
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """All bytes and nothing else, so that decoded ids are the normalized text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = byte_level(expression=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def changed(tokenizer: Tokenizer, **model_fields: Any) -> Tokenizer:
    document = json.loads(tokenizer.to_str())
    document["model"].update(model_fields)
    return Tokenizer.from_str(json.dumps(document))


def with_joined_merges() -> Tokenizer:
    """Merges as older versions of the library wrote them."""
    tokenizer = trained(700, byte_level())
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return changed(tokenizer, merges=["#version: 0.2", *map(" ".join, merges)])


def with_whole_pieces(pre_tokenizer: Any) -> Tokenizer:
    """Pieces that are tokens are taken whole, though no merge leads to them."""
    tokenizer = trained(500, pre_tokenizer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    for content in ("\u0120the\u0120fox", "\u0120clockwork", "jumps", "xyz", "\u010a\u010a"):
        vocabulary.setdefault(content, len(vocabulary))
    return changed(tokenizer, vocab=vocabulary, ignore_merges=True)


def with_telling_pairs(pre_tokenizer: Any) -> Tokenizer:
    """Joins a byte to a common neighbour, so that each cut between them shows in the ids.

    Where a trained tokenizer has no merge across a cut, a wrong cut changes nothing.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    merges = {}
    for neighbour in "a1!'Z\u0120\u010a\u010d":  # the last three are a space, LF and CR
        for character in alphabet:
            for pair in ((neighbour, character), (character, neighbour)):
                merges[pair] = None
                vocabulary.setdefault("".join(pair), len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("\x00", normalized=False)])
    return tokenizer


EXAMPLES = {
    "tiny": lambda: Tokenizer.from_file(str(TINY_TOKENIZER)),
    "gpt2-300": lambda: trained(300, byte_level()),
    "gpt2-1000-space": lambda: trained(1000, byte_level(space=True)),
    "gpt2-4096": lambda: trained(4096, byte_level()),
    "gpt2-split": lambda: trained(900, split(GPT2_EXPRESSION)),
    "gpt4": lambda: trained(2000, split(GPT4_EXPRESSION)),
    "qwen2": lambda: trained(2000, split(QWEN2_EXPRESSION)),
    "gpt4-space": lambda: trained(800, split(GPT4_EXPRESSION, space=True)),
    "uncut": lambda: trained(500, byte_level(expression=False, space=True)),
    "few-bytes": lambda: trained(400, byte_level(), alphabet=False),
    "gpt2-pairs": lambda: with_telling_pairs(byte_level()),
    "gpt4-pairs": lambda: with_telling_pairs(split(GPT4_EXPRESSION)),
    "qwen2-pairs": lambda: with_telling_pairs(split(QWEN2_EXPRESSION)),
    "added-tokens": with_added_tokens,
    "joined-merges": with_joined_merges,
    "whole-pieces": lambda: with_whole_pieces(byte_level()),
    "gpt-neox": like_gpt_neox,
    "qwen2-composed": like_qwen2,
    "llama3": like_llama3,
}


@cache
def example(name: str) -> Tokenizer:
    return EXAMPLES[name]()


@cache
def installed_texts(megabytes: float) -> list[str]:
    """Sources and documents that Python and its packages bring, beginning with the least ASCII."""
    folders = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    paths = itertools.chain.from_iterable(
        sorted(folder.rglob(f"*{suffix}"))
        for folder in folders
        for suffix in (".md", ".rst", ".txt", ".py")
    )
    texts = []
    size = 0
    for path in paths:
        content = path.read_bytes()[:100_000]
        texts.append(content.decode(errors="replace"))
        size += len(content)
        if size > megabytes * 1e6:
            break
    return texts


def generated_texts(count: int, seed: int) -> list[str]:
    """Random mixtures of characters, lines and runs."""
    generator = random.Random(seed)  # noqa: S311
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(generator.randrange(40)):
            kind = generator.randrange(4)
            if kind == 0:
                parts.append(generator.choice(LINES))
            elif kind == 1:
                parts.append(generator.choice(CHARACTERS) * generator.randrange(1, 30))
            elif kind == 2:
                code = generator.choice([0x250, 0x3000, 0x10000, 0x110000])
                parts.append(chr(generator.randrange(code)))
            else:
                parts.append("".join(generator.choices(" \n\r\t'", k=generator.randrange(6))))
        text = "".join(parts)
        texts.append(text.encode(errors="replace").decode())  # without surrogates
    return texts
