"""The committed character classes are those of the installed `tokenizers` library."""

from __future__ import annotations

import runpy

from tests.native.tokenizer_examples import ROOT

SCRIPT = ROOT / "native" / "tools" / "make_unicode_tables.py"


def test_the_tables_are_what_the_script_writes() -> None:
    script = runpy.run_path(str(SCRIPT))
    committed = script["TABLE_PATH"].read_text(encoding="utf-8")
    assert committed == script["table_source"](), f"run python {SCRIPT.relative_to(ROOT)}"
