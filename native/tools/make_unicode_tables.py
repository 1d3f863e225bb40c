"""Writes native/src/unicode_tables.cc: which characters are letters, numbers, spaces, word parts.

The classes are those that the `tokenizers` library uses, asked of the library itself: the Unicode
version of its regular expressions is neither Python's nor a phone's. Run it from the repository's
root after a new version of the library was pinned:

    python native/tools/make_unicode_tables.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

TABLE_PATH = Path(__file__).parents[1] / "src" / "unicode_tables.cc"

# As in unicode_tables.h.
LETTER, NUMBER, SPACE, WORD = 1, 2, 4, 8
FLAG_BITS = 4
ASCII_SIZE = 0x80
SURROGATES = range(0xD800, 0xE000)
CODE_POINTS = [code for code in range(sys.maxunicode + 1) if code not in SURROGATES]

HEADER = """\
// Written by native/tools/make_unicode_tables.py from tokenizers {version}; do not edit.

#include "unicode_tables.h"

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


def array_lines(values: list[str]) -> str:
    """Returns array elements in lines of up to 100 columns."""
    lines = [""]
    for value in values:
        if lines[-1] and len(lines[-1]) + len(value) + 2 > 96:
            lines.append("")
        lines[-1] += f"{value}, " if lines[-1] else f"    {value}, "
    return "\n".join(line.rstrip() for line in lines)


def table_source() -> str:
    """Returns the text of unicode_tables.cc."""
    flags = character_flags()
    ranges = [
        code << FLAG_BITS | value
        for code, value in enumerate(flags)
        if code == 0 or value != flags[code - 1]
    ]
    return f"""{HEADER.format(version=version("tokenizers"))}
// clang-format off
const uint8_t kAsciiFlags[{ASCII_SIZE}] = {{
{array_lines([str(value) for value in flags[:ASCII_SIZE]])}
}};

const uint32_t kCharacterRanges[] = {{
{array_lines([f"0x{value:X}" for value in ranges])}
}};
// clang-format on

const size_t kCharacterRangeCount = sizeof(kCharacterRanges) / sizeof(kCharacterRanges[0]);

}}  // namespace molkv
"""


if __name__ == "__main__":
    TABLE_PATH.write_text(table_source(), encoding="utf-8")
