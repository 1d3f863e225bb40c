"""Published MoLE checkpoints (arXiv 2503.15798), read as ``architecture: mole``.

Their ``config.json`` is a Llama one with `num_experts` added. Per layer they hold
``experts.{n}.up_proj``, ``experts.{n}.down_proj``, ``router`` and ``expert_layernorm`` directly on
the layer. The shared network and the experts are two layers with an exact GELU between and no gate,
whatever `hidden_act` says, and no layer has a bias.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from molkv_model.config import ModelConfig
from molkv_model.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_published_mole", "published_config", "published_names"]


def is_published_mole(fields: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a published MoLE checkpoint."""
    return fields.get("model_type") == "llama" and "num_experts" in fields


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

    def stated(name: str, default: Any) -> Any:
        return default if fields.get(name) is None else fields[name]

    try:
        config = ModelConfig(
            architecture="mole",
            vocab_size=need("vocab_size"),
            hidden_size=need("hidden_size"),
            intermediate_size=need("intermediate_size"),
            num_hidden_layers=need("num_hidden_layers"),
            num_attention_heads=need("num_attention_heads"),
            num_key_value_heads=stated("num_key_value_heads", need("num_attention_heads")),
            max_position_embeddings=stated("max_position_embeddings", 2048),
            rope_theta=stated("rope_theta", _newer_rope_theta(fields, source)),
            rms_norm_eps=stated("rms_norm_eps", 1e-6),
            tie_word_embeddings=stated("tie_word_embeddings", False),
            feed_forward="gelu",
            num_experts=need("num_experts"),
            expert_intermediate_size=need("intermediate_size"),
            expert_key_size=0,
            expert_query_heads=1,
            expert_window=1,
        )
    except ConfigError as error:
        if error.problem.startswith(source):
            raise
        raise ConfigError(f"{source}: {error.problem}", fix=error.fix) from None
    if fields.get("rope_scaling") is not None:
        raise ConfigError(
            f"{source}: rope_scaling is {fields['rope_scaling']!r}",
            fix="only unscaled rotary embeddings are supported",
        )
    if fields.get("head_dim") not in (None, config.head_dim):
        raise ConfigError(
            f"{source}: head_dim is {fields['head_dim']!r}", fix=f"MoLE has {config.head_dim}"
        )
    return config


def published_names(name: str, config: ModelConfig) -> list[str]:
    """The stored tensors that make up one of the model's: one, or one for each expert."""
    if name.endswith((".experts.up_proj", ".experts.down_proj")):
        layer, projection = name.rsplit(".experts.", 1)
        return [f"{layer}.experts.{n}.{projection}.weight" for n in range(config.num_experts)]
    return [
        name.replace(".experts.norm.", ".expert_layernorm.").replace(".experts.router.", ".router.")
    ]


def _newer_rope_theta(fields: Mapping[str, Any], source: str) -> Any:
    """The base in `rope_parameters`, where newer writers of Llama configs put it."""
    rope = fields.get("rope_parameters")
    if rope is None:
        return 10000.0
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise ConfigError(
            f"{source}: rope_parameters is {rope!r}",
            fix="only unscaled rotary embeddings are supported",
        )
    return rope.get("rope_theta", 10000.0)
