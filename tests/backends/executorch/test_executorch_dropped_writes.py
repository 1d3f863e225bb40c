"""A control of the whole ladder: a program in which one cache write is missing fails it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

from molkv_export.verify import verify
from molkv_runtime.bundle import Bundle
from tests.bundle_changes import accept_changes
from tests.dropped_writes import leave_out_write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends.executorch.conftest import ProgramBundleOf


def failed_rungs(folder: Path) -> set[str]:
    accept_changes(folder, "dense.pte")
    rungs = verify(Bundle.open(folder), backends=["executorch"]).rungs
    return {rung.name for rung in rungs if not rung.passed}


@pytest.mark.parametrize("method", ["prefill", "decode"])
@pytest.mark.parametrize("number", [0, 3])
def test_a_dropped_cache_write_fails_the_ladder(
    program_bundle_of: ProgramBundleOf, tmp_path: Path, method: str, number: int
) -> None:
    folder = shutil.copytree(program_bundle_of("molkv"), tmp_path / "bundle")
    leave_out_write(folder / "dense.pte", method, number)
    assert {"4 prefill in chunks", "6 greedy tokens"} <= failed_rungs(folder)


def test_a_program_that_was_only_written_anew_passes(
    program_bundle_of: ProgramBundleOf, tmp_path: Path
) -> None:
    folder = shutil.copytree(program_bundle_of("molkv"), tmp_path / "bundle")
    file = folder / "dense.pte"
    content = deserialize_pte_binary(file.read_bytes())
    file.write_bytes(bytes(serialize_pte_binary(content, extract_delegate_segments=True)))
    assert failed_rungs(folder) == set()
