"""Damages an ExecuTorch program in a way that its first run does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from executorch.exir.schema import KernelCall

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["leave_out_write"]


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
    assert len(writes) in (2, 4)  # keys and values of every layer
    del chain.instructions[writes[number]]
    file.write_bytes(bytes(serialize_pte_binary(content, extract_delegate_segments=True)))
