"""Published MoLE checkpoints (arXiv 2503.15798), read as ``architecture: mole``.

Their ``config.json`` is a Llama one with `num_experts` added. Per layer they hold
``experts.{n}.up_proj``, ``experts.{n}.down_proj``, ``router`` and ``expert_layernorm`` directly on
the layer. The shared network and the experts are two layers with an exact GELU between and no gate,
whatever `hidden_act` says, and no layer has a bias, whatever `attention_bias` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from molkv_model.config import ModelConfig
from molkv_model.errors import ConfigError

__all__ = ["is_published_mole", "published_config", "published_names"]


def is_published_mole(fields: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a published MoLE checkpoint."""
    return fields.get("model_type") != "molkv" and "num_experts" in fields


def published_config(fields: Mapping[str, Any], *, source: str) -> ModelConfig:
    """Translate a published MoLE's ``config.json``.

    Args:
        fields: the parsed JSON object.
        source: the file's name, for messages.

    Raises:
        ConfigError: a needed field is missing, or asks for something MoLE does not have.
    """

    def need(name: str) -> Any:
        if name not in fields:
            raise ConfigError(f"{source}: missing field {name}", fix="published MoLE states it")
        return fields[name]

    heads, hidden = need("num_attention_heads"), need("hidden_size")
    if fields.get("rope_scaling") is not None:
        raise ConfigError(
            f"{source}: rope_scaling is {fields['rope_scaling']!r}",
            fix="only unscaled rotary embeddings are supported",
        )
    if fields.get("head_dim") not in (None, hidden // heads):
        raise ConfigError(
            f"{source}: head_dim is {fields['head_dim']!r}", fix=f"MoLE has {hidden // heads}"
        )
    # Newer writers of Llama configs put the base into rope_parameters.
    rope = fields.get("rope_parameters") or {}
    try:
        return ModelConfig(
            architecture="mole",
            vocab_size=need("vocab_size"),
            hidden_size=hidden,
            intermediate_size=need("intermediate_size"),
            num_hidden_layers=need("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=fields.get("num_key_value_heads") or heads,
            max_position_embeddings=fields.get("max_position_embeddings", 2048),
            rope_theta=fields.get("rope_theta", rope.get("rope_theta", 10000.0)),
            rms_norm_eps=fields.get("rms_norm_eps", 1e-6),
            tie_word_embeddings=fields.get("tie_word_embeddings", False),
            feed_forward="gelu",
            num_experts=need("num_experts"),
            expert_intermediate_size=need("intermediate_size"),
            expert_key_size=0,
            expert_query_heads=1,
            expert_window=1,
        )
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.problem}", fix=error.fix) from None


def published_names(name: str, config: ModelConfig) -> list[str]:
    """The stored tensors that make up one of the model's: one, or one for each expert."""
    if name.endswith((".experts.up_proj", ".experts.down_proj")):
        layer, projection = name.rsplit(".experts.", 1)
        return [f"{layer}.experts.{n}.{projection}.weight" for n in range(config.num_experts)]
    return [
        name.replace(".experts.norm.", ".expert_layernorm.").replace(".experts.router.", ".router.")
    ]
