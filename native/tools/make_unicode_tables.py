"""Writes what the native tokenizer knows of Unicode, as the `tokenizers` library knows it.

- native/src/unicode_tables.cc: which characters are letters, numbers, spaces, word parts.
- native/src/normalization_tables.cc: how characters decompose, are ordered and compose.

All of it is asked of the library itself, because its Unicode versions are neither Python's nor a
phone's. In tokenizers 0.23.3, normalization is that of Unicode 9: marks that came later are never
reordered, characters that came later neither compose nor decompose. Run it from the repository's
root after a new version of the library was pinned:

    python native/tools/make_unicode_tables.py
"""

from __future__ import annotations

import sys
import unicodedata
from importlib.metadata import version
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

SOURCES = Path(__file__).parents[1] / "src"
CHARACTER_TABLES = SOURCES / "unicode_tables.cc"
NORMALIZATION_TABLES = SOURCES / "normalization_tables.cc"

# As in unicode_tables.h.
LETTER, NUMBER, SPACE, WORD = 1, 2, 4, 8
FLAG_BITS = 4
ASCII_SIZE = 0x80
SURROGATES = range(0xD800, 0xE000)
CODE_POINTS = [code for code in range(sys.maxunicode + 1) if code not in SURROGATES]

# As in normalization_tables.h.
CLASS_BITS = 8
INERT, ACTIVE_STARTER = 0, 255
SIZE_BITS = 2
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)
# The second and third letters of a syllable, which join what stands before them.
HANGUL_VOWELS, HANGUL_FINALS = range(0x1161, 0x1176), range(0x11A8, 0x11C3)

HEADER = """\
// Written by native/tools/make_unicode_tables.py from tokenizers {version}; do not edit.

#include "{include}"

namespace molkv {{
"""


def matched(pattern: str) -> set[int]:
    """Returns the code points that a character class of the Split pre-tokenizer matches."""
    # One text of all characters; what the repeated class does not match is removed.
    split = pre_tokenizers.Split(Regex(f"{pattern}+"), behavior="removed", invert=True)
    found: set[int] = set()
    for _, (start, end) in split.pre_tokenize_str("".join(map(chr, CODE_POINTS))):
        found.update(CODE_POINTS[start:end])
    return found


def added_token_tokenizer(token: AddedToken) -> Tokenizer:
    """Returns a tokenizer that knows nothing but one added token."""
    tokenizer = Tokenizer(models.BPE(vocab={"nothing else": 0}, merges=[]))
    tokenizer.add_tokens([token])
    return tokenizer


def word_characters() -> set[int]:
    r"""Returns the characters that are \w to an added token of a single word."""
    tokenizer = added_token_tokenizer(AddedToken("\x00", single_word=True, normalized=False))
    # The token follows each character; it is found unless the character belongs to a word. In
    # front of each character, a space ends what came before.
    text = "".join(f" {chr(code)}\x00" for code in CODE_POINTS)
    encoding = tokenizer.encode(text)
    found = {start for start, _ in encoding.offsets}
    return {code for index, code in enumerate(CODE_POINTS) if 3 * index + 2 not in found}


def stripped_characters() -> set[int]:
    r"""Returns the characters that are \s to an added token that strips its right side."""
    tokenizer = added_token_tokenizer(AddedToken("\x00", rstrip=True, normalized=False))
    encoding = tokenizer.encode("".join(f"\x00{chr(code)}" for code in CODE_POINTS))
    ends = {end for _, end in encoding.offsets}
    return {code for index, code in enumerate(CODE_POINTS) if 2 * index + 2 in ends} - {0}


def character_flags() -> list[int]:
    """Returns the flags of every code point, 0 for surrogates."""
    letters, numbers, spaces = matched(r"\p{L}"), matched(r"\p{N}"), matched(r"\s")
    if spaces != stripped_characters():
        raise SystemExit("the library's two kinds of space differ; give each a flag of its own")
    if matched(r"[^\s\p{L}\p{N}]") != set(CODE_POINTS) - letters - numbers - spaces:
        raise SystemExit("the library's character classes do not complement each other")
    flags = [0] * (sys.maxunicode + 1)
    for flag, members in (
        (LETTER, letters),
        (NUMBER, numbers),
        (SPACE, spaces),
        (WORD, word_characters()),
    ):
        for code in members:
            flags[code] |= flag
    return flags


def header(include: str) -> str:
    """Returns the beginning of a file with tables."""
    return HEADER.format(version=version("tokenizers"), include=include)


def ranges(values: list[int], bits: int) -> list[int]:
    """Returns where the value of a code point changes, with its value in the lower bits."""
    return [
        code << bits | value
        for code, value in enumerate(values)
        if code == 0 or value != values[code - 1]
    ]


def hexadecimal(values: list[int]) -> list[str]:
    """Returns numbers as the elements of an array."""
    return [f"0x{value:X}" for value in values]


def array_lines(values: list[str]) -> str:
    """Returns array elements in lines of up to 100 columns."""
    lines = [""]
    for value in values:
        if lines[-1] and len(lines[-1]) + len(value) + 2 > 96:
            lines.append("")
        lines[-1] += f"{value}, " if lines[-1] else f"    {value}, "
    return "\n".join(line.rstrip() for line in lines)


def character_source() -> str:
    """Returns the text of unicode_tables.cc."""
    flags = character_flags()
    return f"""{header("unicode_tables.h")}
// clang-format off
const uint8_t kAsciiFlags[{ASCII_SIZE}] = {{
{array_lines([str(value) for value in flags[:ASCII_SIZE]])}
}};

const uint32_t kCharacterRanges[] = {{
{array_lines(hexadecimal(ranges(flags, FLAG_BITS)))}
}};
// clang-format on

const size_t kCharacterRangeCount = sizeof(kCharacterRanges) / sizeof(kCharacterRanges[0]);

}}  // namespace molkv
"""


def normalized(form: normalizers.Normalizer, texts: list[str]) -> list[str]:
    """Returns texts in a normalization form, each as if it stood alone."""
    # U+0000 neither composes nor lets a mark pass.
    return form.normalize_str("\0".join(texts)).split("\0")


def decompositions() -> dict[int, str]:
    """Returns what each character decomposes into, in full; Hangul syllables left out."""
    characters = [chr(code) for code in CODE_POINTS[1:]]
    found = {
        ord(character): text
        for character, text in zip(
            characters, normalized(normalizers.NFD(), characters), strict=True
        )
        if text != character
    }
    syllables = {chr(code): found.pop(code, "") for code in HANGUL_SYLLABLES}
    if any(unicodedata.normalize("NFD", one) != text for one, text in syllables.items()):
        raise SystemExit("the library does not decompose Hangul as the standard does")
    return found


def compositions(decomposed: dict[int, str]) -> dict[tuple[int, int], int]:
    """Returns which two characters become which one; Hangul left out."""
    texts = [text for text in decomposed.values() if len(text) > 1]
    composed = normalized(normalizers.NFC(), texts)
    ends = {text: one for text, one in zip(texts, composed, strict=True) if len(one) == 1}
    beginnings = normalized(normalizers.NFC(), [text[:-1] for text in ends])
    pairs = {
        (ord(first), ord(text[-1])): ord(one)
        for (text, one), first in zip(ends.items(), beginnings, strict=True)
    }
    joined = normalized(normalizers.NFC(), [chr(first) + chr(last) for first, last in pairs])
    if joined != [chr(one) for one in pairs.values()]:
        raise SystemExit("the library composes characters in another way than pair by pair")
    return pairs


def combining_classes(decomposed: dict[int, str]) -> dict[int, int]:
    """Returns the canonical combining classes of the marks that the library reorders."""
    marks = [code for code in matched(r"\p{M}") if code not in decomposed]
    # A mark of class 1 goes before all marks of other classes, one of 240 behind them.
    first, last = "\u0334", "\u0345"
    texts = [f"a{chr(code)}{first}" for code in marks] + [f"a{last}{chr(code)}" for code in marks]
    moved = {
        ord((set(text[1:]) - {first, last} or {text[1]}).pop())
        for text, ordered in zip(texts, normalized(normalizers.NFD(), texts), strict=True)
        if text != ordered
    } | {ord(first), ord(last)}
    # Python knows the number of a class that the library has; it never changes.
    classes = {code: unicodedata.combining(chr(code)) for code in moved}
    examples = {number: chr(code) for code, number in classes.items()}
    order = "".join(examples[number] for number in sorted(examples))
    for code, number in classes.items():
        place = order.index(examples[number])
        shown = f"a{order}{chr(code)}"
        expected = f"a{order[: place + 1]}{chr(code)}{order[place + 1 :]}"
        if normalizers.NFD().normalize_str(shown) != expected:
            raise SystemExit(f"U+{code:04X} is not of class {number} in the library")
    return classes


def normalization_classes(
    decomposed: dict[int, str], pairs: dict[tuple[int, int], int]
) -> list[int]:
    """Returns the class of each code point as normalization_tables.h defines it."""
    classes = [INERT] * (sys.maxunicode + 1)
    for code, number in combining_classes(decomposed).items():
        classes[code] = number
    singles = normalized(normalizers.NFC(), [chr(code) for code in decomposed])
    changing = {code for code, text in zip(decomposed, singles, strict=True) if text != chr(code)}
    joining = {last for _, last in pairs} | {*HANGUL_VOWELS, *HANGUL_FINALS}
    for code in changing | {code for code in joining if classes[code] == INERT}:
        classes[code] = ACTIVE_STARTER
    for code, text in decomposed.items():
        if classes[code] == INERT and classes[ord(text[0])] != INERT:
            raise SystemExit(f"U+{code:04X} may change with what stands before it")
    return classes


def normalization_source() -> str:
    """Returns the text of normalization_tables.cc."""
    decomposed = decompositions()
    pairs = compositions(decomposed)
    classes = normalization_classes(decomposed, pairs)
    keys, places, characters = [], [], ""
    for code, text in sorted(decomposed.items()):
        place = characters.find(text)
        if place < 0:
            place = len(characters)
            characters += text
        keys.append(code << SIZE_BITS | (len(text) - 1))
        places.append(place)
    triples = [f"{{0x{a:X}, 0x{b:X}, 0x{one:X}}}" for (a, b), one in sorted(pairs.items())]
    return f"""{header("normalization_tables.h")}
// clang-format off
const uint32_t kNormalizationRanges[] = {{
{array_lines(hexadecimal(ranges(classes, CLASS_BITS)))}
}};

const uint32_t kDecomposed[] = {{
{array_lines(hexadecimal(keys))}
}};

const uint16_t kDecompositionPlaces[] = {{
{array_lines([str(place) for place in places])}
}};

const uint32_t kDecompositions[] = {{
{array_lines(hexadecimal([ord(character) for character in characters]))}
}};

const Composition kCompositions[] = {{
{array_lines(triples)}
}};
// clang-format on

const size_t kNormalizationRangeCount =
    sizeof(kNormalizationRanges) / sizeof(kNormalizationRanges[0]);
const size_t kDecomposedCount = sizeof(kDecomposed) / sizeof(kDecomposed[0]);
const size_t kCompositionCount = sizeof(kCompositions) / sizeof(kCompositions[0]);

}}  // namespace molkv
"""


def table_sources() -> dict[Path, str]:
    """Returns the text of each file with tables."""
    return {
        CHARACTER_TABLES: character_source(),
        NORMALIZATION_TABLES: normalization_source(),
    }


if __name__ == "__main__":
    for table_path, content in table_sources().items():
        table_path.write_text(content, encoding="utf-8")
