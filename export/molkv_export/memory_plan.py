"""The most memory that an export will have, pass by pass, known before any work."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from molkv_export.embedding_place import EmbeddingPlace
from molkv_export.expert_blob import working_bytes
from molkv_export.golden import GREEDY_TOKENS, MOST_CASES
from molkv_export.graph_sizes import dense_names, graph_sizes
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import ModelConfig
from molkv_runtime.manifest import CachePrecision, DensePrecision
from molkv_runtime.row_layout import RowLayout

__all__ = ["peak_memory"]

_FLOAT_BYTES = 4
# Interpreter and libraries, measured where everything else is small: 310 MiB from Python, 20 more
# from the command line.
_BASE_BYTES = 330 << 20
# What the libraries of other backends add, measured the same way.
_BACKEND_BYTES = {"executorch": 210 << 20, "coreml": 260 << 20}
# Dense weights that a lowering holds at a time, in float32; measured at the 160m shape.
_LOWERING_COPIES: dict[tuple[str, DensePrecision], float] = {
    ("executorch", "fp32"): 4.4,
    ("executorch", "int8"): 1.5,
    ("executorch", "int4"): 1.8,
    ("coreml", "fp16"): 2.6,
}
_MOST_LOWERING_COPIES = 2.6  # of a precision that is not listed
# A block of logits with its copies in double precision (divergence.py).
_BLOCK_BYTES = 24 << 20
# What the tokenizers library needs for each byte of a tokenizer.json with 131,000 tokens.
_TOKENIZER_FACTOR = 8


def peak_memory(
    checkpoint: Checkpoint,
    layout: RowLayout | None,
    precisions: Mapping[str, DensePrecision],
    caches: Mapping[str, CachePrecision],
    embedding: EmbeddingPlace,
    tokenizer_bytes: int,
) -> int:
    """Resident bytes, pages of the mapped checkpoint included.

    Args:
        checkpoint: what is exported.
        layout: of the expert rows, if there are any.
        precisions: of the backends' dense weights, by backend.
        caches: of the self-attention caches, by backend; one that is not named has float32.
        embedding: where the input embedding goes.
        tokenizer_bytes: size of ``tokenizer.json``.
    """
    passes = [_rows(checkpoint, layout), _reference(checkpoint)]
    for backend, dense in precisions.items():
        cache = caches.get(backend, "fp32")
        passes.append(_lowering(checkpoint, backend, dense))
        passes.append(_verdict(checkpoint, backend, dense, cache, embedding))
    libraries = _BASE_BYTES + sum(_BACKEND_BYTES.get(backend, 0) for backend in precisions)
    return libraries + _TOKENIZER_FACTOR * tokenizer_bytes + max(passes)


def _rows(checkpoint: Checkpoint, layout: RowLayout | None) -> int:
    """Writing the expert rows, and computing some anew for the verdict: the expert networks."""
    networks = _sum(checkpoint, [*{*checkpoint.names} - {*dense_names(checkpoint)}])
    if layout is None:
        return 0
    return networks + working_bytes(checkpoint.config, layout, torch.get_num_threads())


def _reference(checkpoint: Checkpoint) -> int:
    """Golden cases, and torch's side of the verdict: the dense weights once, mapped."""
    return _dense(checkpoint) + _cache(checkpoint.config) + _BLOCK_BYTES


def _lowering(checkpoint: Checkpoint, backend: str, dense: DensePrecision) -> int:
    """Writing a dense graph. ONNX's takes one matrix at a time."""
    if backend == "onnx":
        return 4 * _largest(checkpoint)
    copies = _LOWERING_COPIES.get((backend, dense), _MOST_LOWERING_COPIES)
    return int(copies * _dense(checkpoint))


def _verdict(
    checkpoint: Checkpoint,
    backend: str,
    dense: DensePrecision,
    cache: CachePrecision,
    embedding: EmbeddingPlace,
) -> int:
    """A loaded graph, then torch on the weights that it stores; beside both, torch's head."""
    head = _table(checkpoint)
    # A matrix in float32, its blocks and their numbers.
    stored = _dense(checkpoint) + 3 * _largest(checkpoint) + _cache(checkpoint.config)
    # Logits of the golden cases' continuations, which torch is asked for after the engine.
    answers = _FLOAT_BYTES * MOST_CASES * (GREEDY_TOKENS + 1) * checkpoint.config.vocab_size
    if backend == "coreml":  # evaluated in float32, and asked for its weights
        return _dense(checkpoint) + head + stored + answers
    engine = sum(graph_sizes(checkpoint, {backend: dense}, embedding).values()) + head
    if dense == "fp32":
        if checkpoint.config.tie_word_embeddings and embedding == "graph":
            engine += head  # packed to be multiplied by, and to be looked up
        if cache == "fp32":
            return engine + _BLOCK_BYTES
        return max(engine, head + _reference(checkpoint)) + answers
    # The checkpoint's pages, too, which the stored weights are made from.
    return max(engine, head + _dense(checkpoint) + stored) + answers


def _dense(checkpoint: Checkpoint) -> int:
    return _sum(checkpoint, dense_names(checkpoint))


def _table(checkpoint: Checkpoint) -> int:
    return _sum(checkpoint, ["model.embed_tokens.weight"])


def _largest(checkpoint: Checkpoint) -> int:
    return max(_sum(checkpoint, [name]) for name in dense_names(checkpoint))


def _sum(checkpoint: Checkpoint, names: list[str]) -> int:
    return _FLOAT_BYTES * sum(checkpoint.size(name) for name in names)


def _cache(config: ModelConfig) -> int:
    """Of torch's self-attention."""
    rows = config.num_hidden_layers * config.num_key_value_heads * config.max_position_embeddings
    return 2 * rows * config.head_dim * _FLOAT_BYTES
