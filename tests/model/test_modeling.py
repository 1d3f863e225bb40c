"""The transformer around the experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from molkv_model.config import ModelConfig
from molkv_model.errors import ModelError
from molkv_model.modeling import LanguageModel, rotary_table
from tests.model.equations import gelu, rms_norm, self_attention
from tests.model.small_models import ARCHITECTURES, random_ids, random_model, small


def restated(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits [T, V] of one sequence by the equations of docs/model.md, in loops."""
    config, eps = model.config, model.config.rms_norm_eps
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    embedding = weights["model.embed_tokens.weight"]
    h = embedding[ids]
    for l in range(config.num_hidden_layers):  # noqa: E741 - the layer, as in the equations
        prefix = f"model.layers.{l}."
        w = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        h = h + self_attention(
            rms_norm(h, w["input_layernorm.weight"], eps),
            {part: w[f"self_attn.{part}_proj.weight"] for part in "qkvo"},
            heads=config.num_attention_heads,
            key_value_heads=config.num_key_value_heads,
            theta=config.rope_theta,
        )
        x = rms_norm(h, w["post_attention_layernorm.weight"], eps)
        up = x @ w["mlp.up_proj.weight"].T
        if config.feed_forward == "gelu":
            inner = gelu(up)
        else:
            gate = x @ w["mlp.gate_proj.weight"].T
            inner = gate * torch.sigmoid(gate) * up
        y = h + inner @ w["mlp.down_proj.weight"].T
        if config.architecture == "mole":
            y = y + _mole(config, w, x, embedding[ids])
        if config.architecture == "molkv":
            y = y + _molkv(config, w, x, embedding[ids])
        h = y
    head = embedding if config.tie_word_embeddings else weights["lm_head.weight"]
    return rms_norm(h, weights["model.norm.weight"], eps) @ head.T


def _hidden_units(w: dict[str, torch.Tensor], n: int, row: torch.Tensor, eps: float) -> Any:
    return gelu(w["experts.up_proj"][n] @ rms_norm(row, w["experts.norm.weight"], eps))


def _mole(config: ModelConfig, w: dict[str, torch.Tensor], x: Any, rows: Any) -> torch.Tensor:
    out = torch.zeros_like(x)
    for t in range(len(x)):
        weights = (w["experts.router.weight"] @ x[t]).softmax(0)
        for n in range(config.num_experts):
            z = _hidden_units(w, n, rows[t], config.rms_norm_eps)
            out[t] += weights[n] * (w["experts.down_proj"][n] @ z)
    return out


def _molkv(config: ModelConfig, w: dict[str, torch.Tensor], x: Any, rows: Any) -> torch.Tensor:
    eps, size = config.rms_norm_eps, config.expert_key_size
    width = config.hidden_size // config.expert_query_heads
    out = torch.zeros_like(x)
    for t in range(len(x)):
        for g in range(config.expert_query_heads):
            keys = slice(g * size, (g + 1) * size)
            part = slice(g * width, (g + 1) * width)
            q = rms_norm(
                w["experts.query_proj.weight"][keys] @ x[t], w["experts.query_norm.weight"], eps
            )
            scores, values = [], []
            for j in range(max(0, t - config.expert_window + 1), t + 1):
                for n in range(config.num_experts):
                    z = _hidden_units(w, n, rows[j], eps)
                    k = rms_norm(
                        w["experts.key_proj"][n][keys] @ z, w["experts.key_norm.weight"], eps
                    )
                    bias = w["experts.age_bias"][g, n, t - j]
                    scores.append(q @ k / size**0.5 + bias)
                    values.append((w["experts.down_proj"][n] @ z)[part])
            out[t, part] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4, "tie_word_embeddings": False, "rope_theta": 500000.0},
        {"num_key_value_heads": 1, "feed_forward": "gelu", "rms_norm_eps": 1e-2},
    ],
    ids=["default", "untied", "gelu"],
)
def test_logits_are_those_of_the_documented_equations(
    architecture: str, changes: dict[str, Any]
) -> None:
    model = random_model(small(architecture, **changes)).double()
    ids = random_ids(model.config, 1, 8)
    # The rotary tables are float32 until the model is converted, hence not 1e-10.
    torch.testing.assert_close(model(ids)[0], restated(model, ids[0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_a_later_token_never_changes_an_earlier_logit(
    architecture: str, key_value_heads: int, tied: bool
) -> None:
    config = small(architecture, num_key_value_heads=key_value_heads, tie_word_embeddings=tied)
    model = random_model(config)
    ids = random_ids(config, 1, 13)
    before = model(ids)
    for changed in (1, 5, 6, 12):
        other = ids.clone()
        other[0, changed] = (other[0, changed] + 1) % config.vocab_size
        after = model(other)
        torch.testing.assert_close(after[:, :changed], before[:, :changed], atol=2e-5, rtol=0)
        assert (after[:, changed] - before[:, changed]).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sequences_of_a_batch_do_not_see_each_other(architecture: str) -> None:
    model = random_model(small(architecture))
    ids = random_ids(model.config, 3, 9)
    together = model(ids)
    for row, logits in zip(ids, together, strict=True):
        torch.testing.assert_close(model(row[None])[0], logits, atol=2e-5, rtol=0)


def test_experts_reach_back_one_window_and_not_further() -> None:
    config = small(num_hidden_layers=1)
    model = random_model(config)
    torch.nn.init.zeros_(model.model.layers[0].self_attn.o_proj.weight)  # the only other way back
    ids = random_ids(config, 1, 12)
    last = model(ids)[0, -1]
    for age in range(1, 12):
        other = ids.clone()
        other[0, -1 - age] = (other[0, -1 - age] + 1) % config.vocab_size
        moved = (model(other)[0, -1] - last).abs().max()
        assert (moved > 1e-3) == (age < config.expert_window), age


def test_a_mole_expert_sees_the_current_token_only() -> None:
    config = small("mole", num_hidden_layers=1)
    model = random_model(config)
    torch.nn.init.zeros_(model.model.layers[0].self_attn.o_proj.weight)
    ids = random_ids(config, 1, 6)
    other = ids.clone()
    other[0, :-1] = (other[0, :-1] + 1) % config.vocab_size
    torch.testing.assert_close(model(other)[0, -1], model(ids)[0, -1], atol=1e-5, rtol=0)


def test_a_tied_head_is_no_tensor_of_its_own() -> None:
    tied, untied = random_model(small()), random_model(small(tie_word_embeddings=False))
    assert "lm_head.weight" not in tied.state_dict()
    assert tied.head_weight is tied.model.embed_tokens.weight
    assert untied.head_weight is untied.lm_head.weight


def test_the_state_dict_holds_no_computed_table() -> None:
    assert not {"cosine", "sine"} & set(random_model(small()).state_dict())


def test_a_random_start_is_decided_by_its_seed() -> None:
    first, same, other = (LanguageModel(small()) for _ in range(3))
    for model, seed in ((first, 3), (same, 3), (other, 4)):
        model.reset_parameters(seed)
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
        assert bool(value.isfinite().all()), name
    name = "model.embed_tokens.weight"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_an_untrained_model_finds_all_tokens_about_equally_likely() -> None:
    model = LanguageModel(small())
    model.reset_parameters(0)
    probabilities = model(random_ids(model.config, 1, 20)).softmax(-1)
    assert probabilities.max() < 3 / model.config.vocab_size


@pytest.mark.parametrize("context", [1, 64])
def test_an_input_longer_than_the_context_is_refused(context: int) -> None:
    config = small(max_position_embeddings=context)
    model = random_model(config)
    assert model(random_ids(config, 1, context)).shape == (1, context, config.vocab_size)
    with pytest.raises(
        ModelError, match=f"{context + 1} tokens long, the context {context} "
    ) as raised:
        model(random_ids(config, 1, context + 1))
    assert raised.value.fix


def test_a_rotary_table_turns_the_first_pair_by_the_position() -> None:
    cosine, sine = rotary_table(small())
    assert cosine.shape == sine.shape == (64, 4)
    positions = torch.arange(64, dtype=torch.float64)
    torch.testing.assert_close(cosine[:, 0], positions.cos().float())
    torch.testing.assert_close(sine[:, 0], positions.sin().float())
    torch.testing.assert_close(sine[:, 2], (positions * 10000**-0.5).sin().float())
