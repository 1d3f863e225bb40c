"""A dense checkpoint as other engines store it: GGUF for llama.cpp, a folder for its ONNX rival."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from molkv_model.checkpoint import Checkpoint
    from molkv_model.config import ModelConfig
    from molkv_runtime.manifest import CachePrecision

__all__ = ["GGUF_BLOCK", "interleaved", "write_genai", "write_gguf"]

GGUF_TYPES = {32: "F32", 8: "Q8_0", 4: "Q4_0"}
GGUF_BLOCK = 32
GENAI_PRECISIONS = {32: "fp32", 8: "int8", 4: "int4"}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Speed does not depend on it; the range has to hold what random weights make.
_CACHE_SCALE = 0.05


def write_gguf(checkpoint_folder: Path, file: Path, bits: int) -> None:
    """Write what llama.cpp loads, every matrix in the same type.

    Args:
        checkpoint_folder: of a model without experts.
        file: replaced when the new one is complete.
        bits: of a weight: 32, 8 (Q8_0) or 4 (Q4_0).
    """
    import gguf

    from molkv_model.checkpoint import Checkpoint

    checkpoint = Checkpoint(checkpoint_folder)
    kind = gguf.GGMLQuantizationType[GGUF_TYPES[bits]]
    with TemporaryDirectory(dir=file.parent) as folder:
        partial = Path(folder) / file.name
        writer = gguf.GGUFWriter(str(partial), "llama")
        _describe(writer, checkpoint.config)
        for name, array in _gguf_tensors(checkpoint).items():
            if array.ndim == 1 or bits == 32:
                writer.add_tensor(name, array)
            else:
                writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(file)


def _describe(writer: Any, config: ModelConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")


def _gguf_tensors(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    config = checkpoint.config
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = "output.weight"
    for layer in range(config.num_hidden_layers):
        for ours, theirs in _LAYER_NAMES.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    tensors = {}
    for ours, theirs in names.items():
        array = checkpoint.tensor(ours).numpy()
        part = ours.split(".")[-2]
        tensors[theirs] = interleaved(array, heads[part]) if part in heads else array
    return tensors


def interleaved(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head in the order of llama.cpp, which rotates neighbours, not halves."""
    halves = matrix.reshape(heads, 2, -1, matrix.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(matrix.shape))


def write_genai(
    checkpoint_folder: Path, folder: Path, bits: int, block: int, cache: CachePrecision
) -> None:
    """Run the model builder of onnxruntime-genai.

    Args:
        checkpoint_folder: of a model without experts, in one file.
        folder: replaced when the new one is complete.
        bits: of a weight: 32, 8 or 4.
        block: weights that share a scale.
        cache: precision of the self-attention cache.
    """
    from molkv_export.output_folder import partial_folder, put_in_place
    from molkv_model.checkpoint import Checkpoint

    config = Checkpoint(checkpoint_folder).config
    options = [
        "prune_lm_head=true",
        f"block_size={block}",
        "accuracy_level=4",
        "op_types_to_quantize=MatMul/Gather",
    ]
    with partial_folder(folder) as partial, TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        source = scratch / "source"
        _write_hugging_face(checkpoint_folder, config, source)
        if cache == "int8":
            scales = [_CACHE_SCALE] * config.num_hidden_layers
            file = scratch / "scales.json"
            file.write_text(json.dumps({"scales": {"k_scales": scales, "v_scales": scales}}))
            options += ["kv_cache_quant_scheme=int8_per_tensor", f"kv_cache_scale_file={file}"]
        built = subprocess.run(
            [
                *(sys.executable, "-m", "onnxruntime_genai.models.builder"),
                *("--input", source, "--output", partial, "--cache_dir", scratch / "cache"),
                *("--precision", GENAI_PRECISIONS[bits], "--execution_provider", "cpu"),
                *("--extra_options", *options),
            ],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if built.returncode:
            sys.exit(f"{folder}: the model builder failed:\n{built.stdout}")
        put_in_place(partial, folder)


def _write_hugging_face(checkpoint_folder: Path, config: ModelConfig, folder: Path) -> None:
    """The checkpoint as a Llama model, whose names ours are; its tokenizer is never used."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    folder.mkdir()
    described = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
        *("rope_theta", "rms_norm_eps", "tie_word_embeddings"),
    )
    described |= {name: getattr(config, name) for name in names}
    (folder / "config.json").write_text(json.dumps(described))
    words = ("<unk>", "<s>", "</s>")
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(zip(("unk_token", "bos_token", "eos_token"), words, strict=True))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    )
    (folder / "model.safetensors").symlink_to(checkpoint_folder.resolve() / "model.safetensors")
