"""The committed Unicode tables are those of the installed `tokenizers` library."""

from __future__ import annotations

import runpy

from tests.native.tokenizer_examples import ROOT

SCRIPT = ROOT / "native" / "tools" / "make_unicode_tables.py"


def test_the_tables_are_what_the_script_writes() -> None:
    script = runpy.run_path(str(SCRIPT))
    for path, source in script["table_sources"]().items():
        committed = path.read_text(encoding="utf-8")
        assert committed == source, f"{path.name}: run python {SCRIPT.relative_to(ROOT)}"
