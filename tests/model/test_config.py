"""A config is valid when it exists; what is wrong with one is named."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

import molkv_model
from molkv_model.config import PRESETS, STUDIED, ModelConfig, preset
from molkv_model.errors import ConfigError, ModelError
from molkv_model.modeling import LanguageModel
from tests.model.small_models import ARCHITECTURES, small

PROPER = {field.name for field in dataclasses.fields(ModelConfig)} - set(STUDIED)
"""The fields that every ``config.json`` has."""


def parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        model = LanguageModel(config)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_its_baselines_survive_json(name: str) -> None:
    for config in (preset(name), preset(name).as_mole(), preset(name).without_experts()):
        assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_small_has_34_million_dense_parameters() -> None:
    assert parameters(preset("small").without_experts()) == 34_087_424


def test_160m_has_the_shape_of_the_published_160m_models() -> None:
    config = preset("160m")
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (12, 768, 50304)
    assert (config.num_experts, config.expert_key_size) == (4, 64)
    assert not config.tie_word_embeddings
    backbone = 12 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768
    assert parameters(config.without_experts()) == 2 * 50304 * 768 + backbone


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"preset 'huge' is unknown \(one of tiny, small, 160m\)"):
        preset("huge")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architecture": "moe"}, ["architecture", "'moe'", "dense, mole, molkv"]),
        ({"architecture": None}, ["architecture", "None"]),
        ({"feed_forward": "relu"}, ["feed_forward", "'relu'", "swiglu, gelu"]),
        ({"expert_scoring": "gate"}, ["expert_scoring", "'gate'", "key_age, key, sigmoid, silu"]),
        ({"vocab_size": 0}, ["vocab_size", "0", "positive"]),
        ({"vocab_size": 2**31}, ["vocab_size", str(2**31), str(2**31 - 1)]),
        ({"vocab_size": True}, ["vocab_size", "True", "int"]),
        ({"vocab_size": 96.0}, ["vocab_size", "96.0", "int"]),
        ({"vocab_size": "96"}, ["vocab_size", "'96'", "int"]),
        ({"hidden_size": -32}, ["hidden_size", "-32", "positive"]),
        ({"hidden_size": 30}, ["hidden_size 30", "num_attention_heads 4"]),
        ({"hidden_size": 12}, ["num_attention_heads 4 is 3", "even"]),
        ({"intermediate_size": 0}, ["intermediate_size", "0", "positive"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "0", "positive"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers", "1000000000", "1024"]),
        ({"num_attention_heads": 0}, ["num_attention_heads", "0", "positive"]),
        ({"num_key_value_heads": 0}, ["num_key_value_heads", "0", "positive"]),
        ({"num_key_value_heads": 3}, ["num_attention_heads 4", "num_key_value_heads 3"]),
        ({"max_position_embeddings": 0}, ["max_position_embeddings", "0", "positive"]),
        (
            {"max_position_embeddings": 2**20, "hidden_size": 2**17},
            ["max_position_embeddings 1048576", "32768", str(2**27)],
        ),
        ({"rope_theta": 0.0}, ["rope_theta", "0.0", "positive"]),
        ({"rope_theta": math.nan}, ["rope_theta", "nan", "positive"]),
        ({"rope_theta": 10**400}, ["rope_theta", "at most"]),
        ({"rms_norm_eps": math.inf}, ["rms_norm_eps", "inf", "positive"]),
        ({"rms_norm_eps": "1e-5"}, ["rms_norm_eps", "'1e-5'", "float"]),
        ({"tie_word_embeddings": 1}, ["tie_word_embeddings", "1", "bool"]),
        ({"num_experts": 0}, ["num_experts", "0", "positive"]),
        ({"num_experts": 4097}, ["num_experts", "4097", "4096"]),
        ({"expert_intermediate_size": -1}, ["expert_intermediate_size", "-1", "positive"]),
        ({"expert_key_size": 0}, ["expert_key_size", "0", "positive"]),
        ({"expert_query_heads": 0}, ["expert_query_heads", "0", "positive"]),
        ({"expert_query_heads": 5}, ["hidden_size 32", "expert_query_heads 5"]),
        ({"expert_window": 0}, ["expert_window", "0", "positive"]),
    ],
)
def test_an_invalid_field_is_named_with_its_value_and_the_fix(
    changes: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        dataclasses.replace(small(), **changes)
    assert raised.value.fix
    for word in named:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    "field",
    [
        "num_experts",
        "expert_intermediate_size",
        "expert_key_size",
        "expert_query_heads",
        "expert_window",
    ],
)
def test_a_dense_model_has_no_expert_field(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 2, but architecture is dense .*{field} 0"):
        small("dense", **{field: 2})


@pytest.mark.parametrize(
    ("field", "only"), [("expert_key_size", 0), ("expert_query_heads", 1), ("expert_window", 1)]
)
def test_mole_has_neither_keys_nor_a_window(field: str, only: int) -> None:
    with pytest.raises(ConfigError, match=f"{field} is 2, but architecture is mole .*{only}"):
        small("mole", **{field: 2})


def test_the_baselines_differ_in_their_experts_only() -> None:
    config = small()
    mole, dense = config.as_mole(), config.without_experts()
    assert mole.num_experts == config.num_experts
    assert mole.expert_intermediate_size == config.expert_intermediate_size
    assert mole.has_experts
    assert not mole.has_keys
    assert not dense.has_experts
    for field in dataclasses.fields(config):
        if field.name == "architecture" or field.name.startswith(("expert_", "num_experts")):
            continue
        assert getattr(mole, field.name) == getattr(dense, field.name), field.name
        assert getattr(config, field.name) == getattr(dense, field.name), field.name


def test_the_baselines_of_a_variant_are_those_of_the_model_proper() -> None:
    variant = small(expert_scoring="sigmoid", expert_key_norm=False)
    assert variant.as_mole() == small().as_mole()
    assert variant.without_experts() == small().without_experts()
    assert not variant.as_mole().studied


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_json_holds_the_model_type_and_every_field(architecture: str) -> None:
    fields = small(architecture).to_json()
    assert fields["model_type"] == "molkv"
    assert set(fields) == {"model_type"} | PROPER


@pytest.mark.parametrize(
    "change",
    [
        {"expert_age_start": "current"},
        {"expert_key_norm": False},
        {"expert_key_source": "embedding"},
        {"expert_null": True},
        {"expert_shifted_heads": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_json_holds_what_only_the_study_has_where_it_differs(change: dict[str, Any]) -> None:
    config = small(**change)
    fields = json.loads(json.dumps(config.to_json()))
    assert set(fields) == {"model_type"} | PROPER | set(change)
    assert ModelConfig.from_json(fields) == config
    assert config.studied == {k: v for k, v in change.items() if k != "expert_age_start"}
    assert not small().studied


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"expert_age_start": "never"}, "one of current, level, fading"),
        ({"expert_key_source": "token"}, "one of hidden, embedding"),
        ({"expert_shifted_heads": 5}, r"expert_shifted_heads is 5 \(0 to expert_query_heads 4\)"),
        ({"expert_shifted_heads": -1}, "expert_shifted_heads is -1"),
        ({"expert_null": True, "expert_scoring": "silu"}, "expert_scoring is silu"),
        ({"expert_age_start": "level", "expert_scoring": "key"}, "expert_age_start is 'level'"),
        ({"expert_age_start": "current", "expert_scoring": "silu"}, "start is 'current'.*'fading'"),
        ({"expert_window": 1, "expert_scoring": "router_and_past"}, "expert_window is 1"),
        (
            {"architecture": "mole", "expert_key_norm": False},
            "expert_key_norm is False, but architecture is mole",
        ),
    ],
)
def test_a_variant_that_contradicts_itself_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        small(changes.pop("architecture", "molkv"), **changes)


def test_an_unknown_field_in_json_is_named() -> None:
    with pytest.raises(ConfigError, match=r"x/config\.json: unknown field expert_top_k"):
        ModelConfig.from_json(small().to_json() | {"expert_top_k": 1}, source="x/config.json")


@pytest.mark.parametrize("name", sorted(PROPER))
def test_a_missing_field_in_json_is_named_though_it_has_a_default(name: str) -> None:
    fields = small().to_json()
    del fields[name]
    with pytest.raises(ConfigError, match=rf"config\.json: missing field {name}"):
        ModelConfig.from_json(fields)


@pytest.mark.parametrize("model_type", [None, "llama", 7])
def test_another_model_type_in_json_is_named(model_type: object) -> None:
    with pytest.raises(ConfigError, match=f"model_type is {model_type!r}, expected 'molkv'"):
        ModelConfig.from_json(small().to_json() | {"model_type": model_type})


def test_an_invalid_field_in_json_is_named_with_the_file() -> None:
    with pytest.raises(ConfigError, match=r"x/config\.json: num_experts is True .*int") as raised:
        ModelConfig.from_json(small().to_json() | {"num_experts": True}, source="x/config.json")
    assert isinstance(raised.value, ModelError)


def test_the_package_offers_its_parts_and_nothing_else() -> None:
    assert {name for name in molkv_model.__all__ if getattr(molkv_model, name) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = molkv_model.Trainer
