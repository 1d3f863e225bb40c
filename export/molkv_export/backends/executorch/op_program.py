"""A program of one node, the op: how ExecuTorch's kernel is compared with the others."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from numpy.typing import NDArray
from torch import Tensor, nn

from molkv_export.backends.executorch.custom_operators import define_out_variant
from molkv_export.backends.quiet import quiet_libraries
from molkv_export.expert_attention import expert_attention
from molkv_runtime.executorch_runtime import load_executorch
from molkv_runtime.native.executorch_kernel import KERNEL_OPERATOR

if TYPE_CHECKING:
    from molkv_export.op_parity import OpCase

__all__ = ["run_op_program"]


class _Op(nn.Module):
    """The op on the inputs that a case has, in their order."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        given: dict[str, Tensor] = dict(zip(self._names, inputs, strict=True))
        output: Tensor = expert_attention(
            given["query"],
            given["keys"],
            given.get("key_scales"),
            given["values"],
            given.get("value_scales"),
            given["age_bias"],
            given["start"],
        )
        return output


def run_op_program(case: OpCase) -> NDArray[np.float32]:
    """Run the op on ExecuTorch, with the kernel that sessions load.

    Args:
        case: the inputs.

    Returns:
        float32 [T, d].

    Raises:
        NativeLibraryError: the kernel cannot be built.
        RuntimeError: the kernel refuses the inputs.
    """
    inputs = case.given
    tensors = tuple(torch.from_numpy(array) for array in inputs.values())
    define_out_variant()
    with quiet_libraries(), torch.no_grad():
        traced = torch.export.export(_Op(list(inputs)), tensors, strict=False)
        checks = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
        program = to_edge_transform_and_lower(traced, compile_config=checks).to_executorch()
    return _run(program, tensors)


def _run(program: Any, tensors: tuple[Tensor, ...]) -> NDArray[np.float32]:
    runtime = load_executorch()
    runtime.require([KERNEL_OPERATOR], [])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "op.pte"
        file.write_bytes(program.buffer)
        outputs = runtime.load_program(file).load_method("forward").call(list(tensors))
    output: NDArray[np.float32] = outputs[0].numpy()
    return output
