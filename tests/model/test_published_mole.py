"""Published MoLE checkpoints (arXiv 2503.15798) give the logits of MoLE's own equations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from molkv_model import load
from molkv_model.checkpoint import Checkpoint
from molkv_model.errors import CheckpointError, ConfigError
from tests.model.equations import gelu, rms_norm, self_attention

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY, HIDDEN, WIDTH, LAYERS, HEADS, EXPERTS = 96, 32, 48, 2, 4, 3
CONFIG: dict[str, Any] = {
    "architectures": ["MoleForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "bos_token_id": 0,
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "num_experts": EXPERTS,
}


def weights(config: dict[str, Any], *, head: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    def scale() -> Tensor:
        return 1 + 0.3 * torch.randn(HIDDEN, generator=generator)

    key_value = HIDDEN // HEADS * config.get("num_key_value_heads", HEADS)
    tensors = {
        "model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN),
        "model.norm.weight": scale(),
    }
    if head:
        tensors["lm_head.weight"] = matrix(VOCABULARY, HIDDEN)
    for l in range(config["num_hidden_layers"]):  # noqa: E741
        layer = {
            "self_attn.q_proj.weight": matrix(HIDDEN, HIDDEN),
            "self_attn.k_proj.weight": matrix(key_value, HIDDEN),
            "self_attn.v_proj.weight": matrix(key_value, HIDDEN),
            "self_attn.o_proj.weight": matrix(HIDDEN, HIDDEN),
            "mlp.up_proj.weight": matrix(WIDTH, HIDDEN),
            "mlp.down_proj.weight": matrix(HIDDEN, WIDTH),
            "router.weight": matrix(EXPERTS, HIDDEN),
            "input_layernorm.weight": scale(),
            "expert_layernorm.weight": scale(),
            "post_attention_layernorm.weight": scale(),
        }
        for n in range(EXPERTS):
            layer[f"experts.{n}.up_proj.weight"] = matrix(WIDTH, HIDDEN)
            layer[f"experts.{n}.down_proj.weight"] = matrix(HIDDEN, WIDTH)
        tensors |= {f"model.layers.{l}.{name}": value for name, value in layer.items()}
    return tensors


def write(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], shards: int = 1
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save_file(part, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def restated(config: dict[str, Any], stored: dict[str, Tensor], ids: Tensor) -> Tensor:
    """MoLE's equations: logits [T, V] of one sequence."""
    w = {name: value.double() for name, value in stored.items()}
    eps = config["rms_norm_eps"]
    e = w["model.embed_tokens.weight"][ids]
    h = e
    for l in range(config["num_hidden_layers"]):  # noqa: E741
        at = f"model.layers.{l}."
        h1 = h + self_attention(
            rms_norm(h, w[at + "input_layernorm.weight"], eps),
            {part: w[f"{at}self_attn.{part}_proj.weight"] for part in "qkvo"},
            heads=config["num_attention_heads"],
            key_value_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
            theta=config["rope_theta"],
        )
        x = rms_norm(h1, w[at + "post_attention_layernorm.weight"], eps)
        u = rms_norm(e, w[at + "expert_layernorm.weight"], eps)
        g = (x @ w[at + "router.weight"].T).softmax(-1)
        h = h1 + gelu(x @ w[at + "mlp.up_proj.weight"].T) @ w[at + "mlp.down_proj.weight"].T
        for n in range(EXPERTS):
            up, down = (w[f"{at}experts.{n}.{part}_proj.weight"] for part in ("up", "down"))
            h = h + g[:, n : n + 1] * (gelu(u @ up.T) @ down.T)
    head = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    return rms_norm(h, w["model.norm.weight"], eps) @ w[head].T


IDS = torch.randint(0, VOCABULARY, (11,), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("changes", "head", "shards"),
    [
        ({}, True, 1),
        ({}, True, 3),
        ({"tie_word_embeddings": True}, False, 1),
        ({"tie_word_embeddings": True}, True, 1),
        ({"num_key_value_heads": 2}, True, 1),
        ({"num_key_value_heads": 1, "rope_theta": 500000.0}, True, 2),
        ({"rms_norm_eps": 1e-2, "hidden_act": "gelu_new"}, True, 1),
        ({"head_dim": 8, "rope_parameters": {"rope_type": "default"}}, True, 1),
    ],
)
def test_logits_are_those_of_the_published_equations(
    changes: dict[str, Any], head: bool, shards: int, tmp_path: Path
) -> None:
    config = CONFIG | changes
    tensors = weights(config, head=head)
    model = load(write(tmp_path, config, tensors, shards))
    assert model.config.architecture == "mole"
    expected = restated(config, tensors, IDS)
    assert expected.std() > 0.5
    # float64 separates a wrong equation from float32 rounding; logits reach several units.
    actual = model.double()(IDS[None])[0]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_float32_logits_stay_within_1e_5_of_their_size(tmp_path: Path) -> None:
    tensors = weights(CONFIG)
    expected = restated(CONFIG, tensors, IDS)
    actual = load(write(tmp_path, CONFIG, tensors))(IDS[None])[0].double()
    assert (actual - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_read_as_they_are(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: value.to(dtype) for name, value in weights(CONFIG).items()}
    model = load(write(tmp_path, CONFIG, tensors)).double()
    torch.testing.assert_close(
        model(IDS[None])[0], restated(CONFIG, tensors, IDS), atol=1e-5, rtol=0
    )


def test_the_base_of_rope_parameters_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    config = CONFIG | {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    del config["rope_theta"]
    checkpoint = Checkpoint(write(tmp_path, config, weights(config)))
    assert checkpoint.config.rope_theta == 500000.0


def test_absent_fields_have_the_defaults_of_llama(tmp_path: Path) -> None:
    absent = {"rms_norm_eps", "rope_theta", "tie_word_embeddings", "num_key_value_heads"}
    config = {name: value for name, value in CONFIG.items() if name not in absent}
    read = Checkpoint(write(tmp_path, config, weights(config))).config
    assert (read.rms_norm_eps, read.rope_theta) == (1e-6, 10000.0)
    assert (read.tie_word_embeddings, read.num_key_value_heads) == (False, HEADS)


def test_the_identity_is_that_of_the_weights_in_any_sharding(tmp_path: Path) -> None:
    tensors = weights(CONFIG)
    one = Checkpoint(write(tmp_path / "one", CONFIG, tensors))
    three = Checkpoint(write(tmp_path / "three", CONFIG, tensors, 3))
    tensors["model.layers.1.experts.2.up_proj.weight"][0, 0] += 1
    other = Checkpoint(write(tmp_path / "other", CONFIG, tensors))
    assert one.identity() == three.identity() != other.identity()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, ["rope_scaling", "llama3"]),
        ({"rope_parameters": {"rope_type": "yarn"}}, ["rope_parameters", "yarn"]),
        ({"rope_parameters": [10000.0], "rope_theta": None}, ["rope_parameters", "[10000.0]"]),
        ({"head_dim": 16}, ["head_dim", "16", "8"]),
        ({"hidden_size": "32"}, ["hidden_size", "'32'", "int"]),
        ({"num_attention_heads": 0}, ["num_attention_heads", "0", "positive"]),
        ({"num_key_value_heads": 0}, ["num_key_value_heads", "0", "positive"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads 3"]),
        ({"num_experts": 0}, ["num_experts", "0", "positive"]),
        ({"num_experts": None}, ["num_experts", "None", "int"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings", "'no'", "bool"]),
    ],
)
def test_a_config_that_mole_does_not_have_is_named(
    changes: dict[str, Any], named: list[str], tmp_path: Path
) -> None:
    folder = write(tmp_path, CONFIG | changes, weights(CONFIG))
    with pytest.raises(ConfigError) as raised:
        load(folder)
    message = str(raised.value)
    assert message.count(f"{folder / 'config.json'}: ") == 1
    assert raised.value.fix
    for word in named:
        assert word in message


@pytest.mark.parametrize(
    "field",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    ],
)
def test_a_missing_field_is_named(field: str, tmp_path: Path) -> None:
    config = {name: value for name, value in CONFIG.items() if name != field}
    folder = write(tmp_path, config, weights(CONFIG))
    with pytest.raises(ConfigError, match=rf"config\.json: missing field {field}"):
        load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.expert_layernorm.weight",
        "model.layers.0.experts.2.down_proj.weight",
        "model.layers.0.router.weight",
        "lm_head.weight",
    ],
)
def test_a_missing_tensor_is_named_as_published(name: str, tmp_path: Path) -> None:
    tensors = weights(CONFIG)
    del tensors[name]
    with pytest.raises(CheckpointError, match=f"missing tensor {name}"):
        load(write(tmp_path, CONFIG, tensors))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.experts.3.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.experts.up_proj",
    ],
)
def test_a_tensor_that_mole_does_not_have_is_named(name: str, tmp_path: Path) -> None:
    tensors = weights(CONFIG) | {name: torch.ones(WIDTH, HIDDEN)}
    folder = write(tmp_path, CONFIG, tensors)
    with pytest.raises(CheckpointError, match=f"unknown tensor {name}") as raised:
        load(folder)
    assert str(folder / "model.safetensors") in str(raised.value)


def test_a_misshapen_expert_is_named_as_published(tmp_path: Path) -> None:
    tensors = weights(CONFIG)
    name = "model.layers.1.experts.1.up_proj.weight"
    tensors[name] = tensors[name].T.contiguous()
    with pytest.raises(CheckpointError, match=rf"{name} has shape \[32, 48\].* \[48, 32\]"):
        load(write(tmp_path, CONFIG, tensors))


@pytest.mark.parametrize(
    "fields",
    [
        {name: value for name, value in CONFIG.items() if name != "num_experts"},
        CONFIG | {"model_type": "qwen3_moe"},
    ],
    ids=["llama", "another mixture of experts"],
)
def test_another_llama_like_model_is_refused_by_its_type(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    folder = write(tmp_path, fields, weights(CONFIG))
    with pytest.raises(ConfigError, match="expected 'molkv'") as raised:
        load(folder)
    assert f"model_type is {fields['model_type']!r}" in str(raised.value)
    assert "published MoLE" in raised.value.fix
