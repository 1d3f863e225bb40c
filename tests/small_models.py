"""Small random checkpoints of every kind, with weights large enough that mistakes show."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from molkv_model.corpus import END_OF_TEXT

if TYPE_CHECKING:
    from molkv_model.config import ModelConfig
    from molkv_model.modeling import LanguageModel

KINDS = ("molkv", "molkv-key-gelu-untied", "mole", "mole-published", "dense")
_TEXT = (
    "The President of the United States spoke to the Congress. "
    "Call me Ishmael. The whale swam past the ship, and the ship past the whale. "
)


def small_config(kind: str, **changes: Any) -> ModelConfig:
    """The configuration of one of KINDS."""
    from molkv_model.config import ModelConfig

    config = ModelConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        num_experts=3,
        expert_intermediate_size=32,
        expert_key_size=8,
        expert_query_heads=2,
        expert_window=8,
        # What the ladder's limits of quantized graphs were measured with.
        expert_age_start="current",
    )
    if kind == "molkv-key-gelu-untied":
        config = dataclasses.replace(
            config,
            num_key_value_heads=4,
            tie_word_embeddings=False,
            feed_forward="gelu",
            expert_scoring="key",
            expert_age_start="fading",
        )
    elif kind == "mole":
        config = config.as_mole()
    elif kind == "mole-published":
        config = dataclasses.replace(
            config.as_mole(),
            feed_forward="gelu",
            tie_word_embeddings=False,
            expert_intermediate_size=config.intermediate_size,
        )
    elif kind == "dense":
        config = config.without_experts()
    return dataclasses.replace(config, **changes)


def random_model(config: ModelConfig, seed: int = 1) -> LanguageModel:
    """A model in which every tensor matters: no norm weight is one, no bias is constant."""
    import torch

    from molkv_model.modeling import LanguageModel

    model = LanguageModel(config)
    model.reset_parameters(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.3 * noise)
            elif name.endswith("age_bias"):
                weight.add_(noise)
            else:
                weight.mul_(6)
    return model.eval()


def write_checkpoint(
    folder: Path,
    kind: str = "molkv",
    *,
    tokenizer: Path | None = None,
    seed: int = 1,
    **config: Any,
) -> Path:
    """Write a checkpoint of one of KINDS; returns the folder."""
    from molkv_model.checkpoint import save

    model = random_model(small_config(kind, **config), seed)
    save(model, folder, tokenizer=tokenizer)
    if kind == "mole-published":
        _publish(folder, model)
    return folder


def write_tokenizer(file: Path, vocabulary_size: int = 300) -> Path:
    """Train a byte-level BPE tokenizer; the model's vocabulary is larger, as padded ones are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT] * 4, trainer)
    tokenizer.save(str(file))
    return file


def edit_weights(folder: Path, name: str, value: float, *, place: int = 0) -> None:
    """Replace one number of one tensor of a checkpoint."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[place] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _publish(folder: Path, model: LanguageModel) -> None:
    """Rewrite a checkpoint in the layout of published MoLE, written down here independently."""
    from safetensors.torch import save_file

    config = model.config
    tensors = {}
    for name, value in model.state_dict().items():
        if name.endswith((".experts.up_proj", ".experts.down_proj")):
            layer, projection = name.split(".experts.")
            for expert, weight in enumerate(value):
                tensors[f"{layer}.experts.{expert}.{projection}.weight"] = weight.clone()
        else:
            name = name.replace(".experts.norm.", ".expert_layernorm.")
            tensors[name.replace(".experts.router.", ".router.")] = value.clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    fields = {
        "architectures": ["MoleForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
        "num_experts": config.num_experts,
    }
    (folder / "config.json").write_text(json.dumps(fields))
