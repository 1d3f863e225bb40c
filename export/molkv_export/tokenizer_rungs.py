"""The tokenizer's rungs of the parity ladder, on both engines, whatever graphs a bundle has."""

from __future__ import annotations

from collections.abc import Iterator

from molkv_export.rungs import at_most
from molkv_runtime.bundle import Bundle
from molkv_runtime.engines import TextCodec, engine_named
from molkv_runtime.golden import GoldenCase
from molkv_runtime.manifest import RungEntry

__all__ = ["climb_tokenizer"]

_ENGINES = {"native": "6 tokenizer", "reference": "6 tokenizer, reference engine"}


def climb_tokenizer(bundle: Bundle) -> Iterator[RungEntry]:
    """Climb both rungs; none without a tokenizer.

    Raises:
        TokenizerError: the tokenizer cannot be used.
    """
    cases = bundle.load_golden().cases
    for engine, name in _ENGINES.items():
        tokenizer = engine_named(engine).open_tokenizer(bundle)
        if tokenizer is not None:
            changed = sum(_differs(tokenizer, case) for case in cases)
            yield at_most(name, changed, 0, f"{len(cases)} prompts")


def _differs(tokenizer: TextCodec, case: GoldenCase) -> bool:
    """Whether the text becomes other ids than recorded, or recorded ids another text."""
    if case.text is not None and tokenizer.encode(case.text) != case.prompt_ids:
        return True
    return tokenizer.decode(case.greedy) != case.greedy_text
