"""Lowers a step to one ExecuTorch program of two methods that share the self-attention cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass
from torch import Tensor
from torch.export import Dim, ExportedProgram

from molkv_export.backends.executorch.custom_operators import define_out_variant
from molkv_export.backends.executorch.quantization import quantize
from molkv_export.backends.executorch.step import DecoderStep
from molkv_export.backends.lowered_graph import LoweredGraph, graph_properties
from molkv_export.expert_blob import row_geometry
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.manifest import (
    BackendEntry,
    DensePrecision,
    EmbeddingPrecision,
    LimitsEntry,
)
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import RowLayout
from molkv_runtime.session import DEFAULT_CHUNK

__all__ = ["MODEL_FILE", "write_dense_graph"]

MODEL_FILE = "dense.pte"
METADATA_METHOD = "molkv_metadata"


def write_dense_graph(
    checkpoint: Checkpoint,
    folder: Path,
    experts: ExpertPrecision,
    identity: str,
    dense: DensePrecision = "fp32",
    embedding: EmbeddingPrecision | None = None,
) -> LoweredGraph:
    """Write ``dense.pte``.

    Args:
        checkpoint: the trained model.
        folder: an existing folder.
        experts: how the window's rows are stored.
        identity: the checkpoint's, in hexadecimal; kept in the program's metadata.
        dense: precision of the dense weights.
        embedding: precision of the input embedding in the rows; None puts it into the program.

    Returns:
        the file, its operators and its limits.
    """
    config = checkpoint.config
    limits = LimitsEntry(
        chunk=min(DEFAULT_CHUNK, config.max_position_embeddings),
        context=config.max_position_embeddings,
        cache_tokens=config.max_position_embeddings,
        window=config.expert_window if config.has_experts else 0,
    )
    metadata = graph_properties(
        config,
        identity=identity,
        experts=experts,
        dense=dense,
        cache="fp32",
        limits=limits,
        embedding=embedding,
    )
    step = DecoderStep.from_checkpoint(checkpoint, experts, embedding)
    quantize(step, dense)
    program = _lower(_traced(step, experts, limits.chunk), json.dumps(metadata), dense)
    file = folder / MODEL_FILE
    with file.open("wb") as target:
        program.write_to_file(target)
    plans = program.executorch_program.execution_plan
    operators = {_full_name(operator) for plan in plans for operator in plan.operators}
    delegates = {delegate.id for plan in plans for delegate in plan.delegates}
    entry = BackendEntry(
        graph=MODEL_FILE,
        dense=dense,
        cache="fp32",
        operators=dict.fromkeys(sorted(operators), 1),
        delegates=sorted(delegates),
        limits=limits,
        compute_units=None,
    )
    return LoweredGraph([file], entry)


def _traced(step: DecoderStep, experts: ExpertPrecision, chunk: int) -> dict[str, ExportedProgram]:
    """The two methods, traced on examples of the sizes that may vary."""
    config = step.config
    tokens, wanted = Dim("tokens", min=1, max=chunk), Dim("logits_rows", min=1, max=chunk)
    example_tokens = min(5, chunk)
    window = config.expert_window if config.has_experts else 0
    rows = Dim("window_rows", min=1, max=max(1, window - 1 + chunk))
    full = Dim("window_rows", min=1, max=window) if window > 1 else None
    position = torch.zeros(1, dtype=torch.int64)
    token = torch.zeros(1, 1, dtype=torch.int64)
    if step.takes_embeddings:
        token = torch.zeros(1, 1, config.hidden_size)

    def dynamic(size: Any, planes: list[Tensor]) -> list[Any]:
        return [None if plane is planes[0] or size is None else {0: size} for plane in planes]

    prefill_window = _example_window(step, experts, window - 1 + example_tokens)
    decode_window = _example_window(step, experts, window)
    with torch.no_grad():
        prefill = torch.export.export(
            step,
            (
                torch.cat([token] * example_tokens, dim=1),
                position,
                prefill_window,
                torch.zeros(min(3, chunk)).long(),
            ),
            dynamic_shapes=({1: tokens}, None, dynamic(rows, prefill_window), {0: wanted}),
            strict=False,
        )
        decode = torch.export.export(
            step,
            (token, position, decode_window),
            dynamic_shapes=(None, None, dynamic(full, decode_window)),
            strict=False,
        )
    return {"prefill": prefill, "decode": decode}


def _example_window(step: DecoderStep, experts: ExpertPrecision, rows: int) -> list[Tensor]:
    """`expert_start` and every layer's planes; empty without experts."""
    config: ModelConfig = step.config
    if not config.has_experts:
        return []
    layout = RowLayout.of(row_geometry(config, experts))
    sections = {section.name: section for section in layout.layer_sections}
    planes = [
        torch.from_numpy(np.zeros((rows, *sections[name].shape), sections[name].dtype))
        for _ in range(config.num_hidden_layers)
        for name in step.planes
    ]
    return [torch.zeros(1, dtype=torch.int64), *planes]


def _lower(methods: dict[str, ExportedProgram], metadata: str, dense: DensePrecision) -> Any:
    define_out_variant()
    edge = to_edge_transform_and_lower(
        methods,
        partitioner={name: [XnnpackPartitioner()] for name in methods},
        # The checks refuse operators of other domains.
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        constant_methods={METADATA_METHOD: metadata},
    )
    # Inputs and outputs are the caller's memory: the window is read where it lies.
    planning = MemoryPlanningPass(
        alloc_graph_input=False, alloc_graph_output=False, share_mutable_buffers=True
    )
    return edge.to_executorch(
        ExecutorchBackendConfig(
            extract_delegate_segments=True,
            memory_planning_pass=planning,
            sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass(),
            do_quant_fusion_and_const_prop=dense != "fp32",
        )
    )


def _full_name(operator: Any) -> str:
    return f"{operator.name}.{operator.overload}" if operator.overload else str(operator.name)
