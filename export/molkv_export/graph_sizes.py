"""How large each backend's dense graph will be: estimates, all close (the tests compare)."""

from __future__ import annotations

from collections.abc import Mapping

from molkv_export.backends.onnx.decoder import DATA_FILE, MODEL_FILE
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_export.embedding_place import EmbeddingPlace
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.manifest import DensePrecision

__all__ = ["EMBEDDING_TENSOR", "dense_names", "graph_sizes"]

EMBEDDING_TENSOR = "model.embed_tokens.weight"

# Written here because their modules load the backends' libraries.
_EXECUTORCH_FILE = "dense.pte"
_COREML_FOLDER = "dense.mlpackage"

_FLOAT_BYTES = 4
_PAGE_BYTES = 4096
_SMALL_BYTES = 1024  # smaller weights lie in the ONNX graph's file
# With the scales: a float32 for each 128 weights of int8, each 64 of int4.
_ONNX_BYTES = {"fp32": 4.0, "int8": 1.03125, "int4": 0.5625}
# With the scales: a float32 for each of 32 int4 weights; those of int8 rows are too few to count.
_EXECUTORCH_BYTES = {"fp32": 4.0, "int8": 1.0, "int4": 0.625}
# With scales: one for each 32 weights of int4, tables of 16 for each 16 rows of palettized4.
_COREML_BYTES = {"fp16": 2.0, "int8": 1.02, "int4": 0.5625, "palettized4": 0.52}
_COREML_LAYER_BYTES = 80 << 10  # two functions of ops, measured


def dense_names(checkpoint: Checkpoint, place: EmbeddingPlace = "graph") -> list[str]:
    """The tensors that stay in the dense graph; a tied embedding does, because it is the head."""
    leaves = place == "storage" and not checkpoint.config.tie_word_embeddings
    return [
        name
        for name in checkpoint.names
        if not is_expert_table_tensor(name) and not (leaves and name == EMBEDDING_TENSOR)
    ]


def graph_sizes(
    checkpoint: Checkpoint,
    precisions: Mapping[str, DensePrecision],
    place: EmbeddingPlace = "graph",
) -> dict[str, int]:
    """Bytes of every file, or folder, of the dense graphs.

    Args:
        checkpoint: what is exported.
        precisions: of the backends' dense weights, by backend.
        place: where the input embedding goes.
    """
    sizes: dict[str, int] = {}
    if "onnx" in precisions:
        sizes |= _onnx(checkpoint, precisions["onnx"], place)
    if "executorch" in precisions:
        sizes[_EXECUTORCH_FILE] = _executorch(checkpoint, precisions["executorch"], place)
    if "coreml" in precisions:
        sizes[_COREML_FOLDER] = _coreml(checkpoint, precisions["coreml"], place)
    return sizes


def _onnx(checkpoint: Checkpoint, dense: DensePrecision, place: EmbeddingPlace) -> dict[str, int]:
    config, bytes_per_weight = checkpoint.config, _ONNX_BYTES[dense]
    names = dense_names(checkpoint, place)
    weights = [int(checkpoint.size(name) * bytes_per_weight) for name in names]
    weights = [size for size in weights if size >= _SMALL_BYTES]
    rotary_table = config.max_position_embeddings * config.head_dim // 2 * _FLOAT_BYTES
    pages = [-(-size // _PAGE_BYTES) for size in [*weights, rotary_table, rotary_table]]
    return {
        DATA_FILE: sum(pages) * _PAGE_BYTES,
        MODEL_FILE: (8 + 5 * config.num_hidden_layers) << 10,
    }


def _executorch(checkpoint: Checkpoint, dense: DensePrecision, place: EmbeddingPlace) -> int:
    """The weights, a tied table twice: once to look up, once to multiply by."""
    config = checkpoint.config
    table = config.vocab_size * config.hidden_size
    products = sum(checkpoint.size(name) for name in dense_names(checkpoint))
    products -= 0 if config.tie_word_embeddings else table
    looked_up = _EXECUTORCH_BYTES["fp32" if dense == "fp32" else "int8"]
    table = 0 if place == "storage" else table
    weights = int(products * _EXECUTORCH_BYTES[dense] + table * looked_up)
    rotary_tables = 2 * config.max_position_embeddings * config.head_dim * _FLOAT_BYTES
    return weights + rotary_tables + ((64 + 64 * config.num_hidden_layers) << 10)


def _coreml(checkpoint: Checkpoint, dense: DensePrecision, place: EmbeddingPlace) -> int:
    count = sum(checkpoint.size(name) for name in dense_names(checkpoint, place))
    layers = checkpoint.config.num_hidden_layers
    return int(count * _COREML_BYTES[dense]) + _COREML_LAYER_BYTES * layers
