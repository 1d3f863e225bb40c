"""A control of the whole ladder: a program in which one cache write is missing fails it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from executorch.exir.schema import KernelCall

from molkv_export.verify import verify
from molkv_runtime.bundle import Bundle
from tests.bundle_changes import accept_changes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends.executorch.conftest import ProgramBundleOf


def leave_out_write(file: Path, method: str, number: int) -> None:
    """Remove one of a method's writes into the self-attention cache, in the order they are in."""
    content = deserialize_pte_binary(file.read_bytes())
    (plan,) = (plan for plan in content.program.execution_plan if plan.name == method)
    (chain,) = plan.chains
    calls = [instruction.instr_args for instruction in chain.instructions]
    writes = [
        place
        for place, call in enumerate(calls)
        if isinstance(call, KernelCall)
        and plan.operators[call.op_index].name == "llama::update_cache"
    ]
    assert len(writes) == 4  # keys and values of two layers
    del chain.instructions[writes[number]]
    file.write_bytes(bytes(serialize_pte_binary(content, extract_delegate_segments=True)))


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
