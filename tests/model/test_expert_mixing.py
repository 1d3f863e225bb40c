"""The variants of the study compute what docs/paper.md says, term by term."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from molkv_model.expert_mixing import (
    first_age_bias,
    past_attention,
    shift_heads,
    windowed_attention,
    windowed_gates,
)
from tests.model.equations import gelu, rms_norm
from tests.model.small_models import random_ids, random_model, small

VARIANTS: dict[str, dict[str, object]] = {
    "sigmoid": {"expert_scoring": "sigmoid"},
    "silu": {"expert_scoring": "silu"},
    "router and past": {"expert_scoring": "router_and_past"},
    "null": {"expert_null": True},
    "null without bias": {"expert_null": True, "expert_scoring": "key"},
    "plain keys": {"expert_key_norm": False},
    "embedding keys": {"expert_key_source": "embedding"},
    "shifted": {"expert_shifted_heads": 2},
    "current": {"expert_age_start": "current"},
    "level": {"expert_age_start": "level"},
}


def inputs(length: int, window: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, keys, values and age bias: a batch of one, two heads, three experts."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return (
        random(1, length, 2, 5),
        random(1, length, 3, 2, 5),
        random(1, length, 3, 6),
        random(2, 3, window),
    )


def restated(
    given: tuple[Tensor, Tensor, Tensor, Tensor],
    weigh: Callable[[Tensor, int], Tensor],
    youngest: int = 0,
) -> Tensor:
    """A sum over the pairs of the window, weighed by a function of their scores and the head."""
    query, keys, values, bias = (tensor[0] for tensor in (*given[:3], given[3][None]))
    out = torch.zeros(len(query), 6, dtype=torch.float64)
    for t in range(len(query)):
        ages = [age for age in range(youngest, bias.shape[2]) if age <= t]
        for g in range(2):
            pairs = [(t - age, n, age) for age in ages for n in range(3)]
            if not pairs:
                continue
            scores = torch.stack(
                [
                    query[t, g] @ keys[j, n, g] / math.sqrt(5) + bias[g, n, age]
                    for j, n, age in pairs
                ]
            )
            for weight, (j, n, _) in zip(weigh(scores, g), pairs, strict=True):
                out[t, 3 * g : 3 * g + 3] += weight * values[j, n, 3 * g : 3 * g + 3]
    return out


@pytest.mark.parametrize(("length", "window"), [(1, 4), (3, 4), (9, 4), (6, 1)])
def test_a_null_candidate_takes_weight_and_gives_nothing(length: int, window: int) -> None:
    given, null = inputs(length, window), torch.tensor([0.7, -1.2], dtype=torch.float64)

    def weigh(scores: Tensor, head: int) -> Tensor:
        return scores.exp() / (scores.exp().sum() + null[head].exp())

    expected = restated(given, weigh)
    torch.testing.assert_close(windowed_attention(*given, null)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("length", "window"), [(1, 4), (3, 4), (9, 4)])
def test_the_past_is_weighed_apart_from_the_current_token(length: int, window: int) -> None:
    given = inputs(length, window)

    def weigh(scores: Tensor, _: int) -> Tensor:
        return scores.exp() / (scores.exp().sum() + 1)

    expected = restated(given, weigh, youngest=1)
    torch.testing.assert_close(past_attention(*given)[0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("gate", [torch.sigmoid, functional.silu])
@pytest.mark.parametrize(("length", "window"), [(1, 4), (3, 4), (9, 4), (6, 1)])
def test_a_gate_sees_its_own_score_only(
    gate: Callable[[Tensor], Tensor], length: int, window: int
) -> None:
    given = inputs(length, window)
    expected = restated(given, lambda scores, _: gate(scores))
    torch.testing.assert_close(windowed_gates(*given, gate)[0], expected, atol=1e-12, rtol=0)


def test_shifted_heads_have_the_keys_of_the_token_before() -> None:
    keys = inputs(5, 4)[1]
    shifted = shift_heads(keys, 1)
    assert torch.equal(shifted[:, :, :, 1], keys[:, :, :, 1])
    assert torch.equal(shifted[:, 1:, :, 0], keys[:, :-1, :, 0])
    assert not shifted[:, 0, :, 0].any()
    assert shift_heads(keys, 0) is keys


@pytest.mark.parametrize("window", [2, 8, 64])
@pytest.mark.parametrize("start", ["current", "fading"])
def test_the_current_token_starts_with_four_fifths_of_the_weight(start: str, window: int) -> None:
    bias = first_age_bias(small(expert_window=window, expert_age_start=start))
    share = bias[:, :, 0].exp() / bias.exp().sum(dim=2)
    assert torch.all((share - 0.8).abs() < 0.1)
    assert torch.all(bias.diff(dim=2) <= 0)


@pytest.mark.parametrize("window", [2, 8, 64])
@pytest.mark.parametrize(
    ("scoring", "gate"), [("sigmoid", torch.sigmoid), ("silu", functional.silu)]
)
def test_gates_start_with_about_one_for_the_current_token_and_a_quarter_for_the_past(
    scoring: str, gate: Callable[[Tensor], Tensor], window: int
) -> None:
    weights = gate(first_age_bias(small(expert_window=window, expert_scoring=scoring)))
    now, past = weights[:, :, 0].sum(dim=1), weights[:, :, 1:].sum(dim=(1, 2))
    assert torch.all((now - 1).abs() < 0.4)
    assert torch.all((past > 0.05) & (past < 0.3))


def test_a_level_start_prefers_no_age() -> None:
    assert not first_age_bias(small(expert_age_start="level")).any()


def test_keys_may_come_from_the_embedding_and_stay_as_they_are() -> None:
    config = small(expert_key_source="embedding", expert_key_norm=False)
    experts = random_model(config).double().model.layers[0].experts
    weights = experts.state_dict()
    row = torch.randn(config.hidden_size, dtype=torch.float64)
    keys, values = experts.table(row[None])
    normed = rms_norm(row, weights["norm.weight"], config.rms_norm_eps)
    for n in range(config.num_experts):
        key = weights["key_proj"][n] @ normed
        torch.testing.assert_close(keys[0, n].flatten(), key)
        hidden = gelu(weights["up_proj"][n] @ normed)
        torch.testing.assert_close(values[0, n], weights["down_proj"][n] @ hidden)
    x = torch.randn(config.hidden_size, dtype=torch.float64)
    torch.testing.assert_close(experts.query(x).flatten(), weights["query_proj.weight"] @ x)


def test_router_and_past_adds_a_gated_past_to_what_mole_mixes() -> None:
    config = small(expert_scoring="router_and_past")
    experts = random_model(config).double().model.layers[0].experts
    ids = random_ids(config, 1, 7)
    embeddings = torch.randn(config.vocab_size, config.hidden_size, dtype=torch.float64)
    x = torch.randn(1, 7, config.hidden_size, dtype=torch.float64)
    keys, values = (rows[ids] for rows in experts.table(embeddings))
    weights = experts.state_dict()
    router = (x @ weights["router.weight"].T).softmax(-1)
    mixed = torch.einsum("btn,btnd->btd", router, values)
    past = past_attention(experts.query(x), keys, values, experts.bias())
    gate = (x @ weights["past_gate.weight"].T).sigmoid()
    gated = past * gate.repeat_interleave(config.hidden_size // config.expert_query_heads, -1)
    torch.testing.assert_close(experts(x, embeddings, ids), mixed + gated)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_sees_the_future_and_every_weight_counts(name: str) -> None:
    config = small(**VARIANTS[name])
    model = random_model(config)
    ids = random_ids(config, 1, 13)
    changed = ids.clone()
    changed[0, 9] = (changed[0, 9] + 1) % config.vocab_size
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], atol=1e-4, rtol=0)
    assert (before[:, 9:] - after[:, 9:]).abs().max() > 1e-3
    before.square().sum().backward()
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None, weight
        assert parameter.grad.any(), weight


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_the_model_proper(name: str) -> None:
    model = random_model(small(**VARIANTS[name]))
    model.reset_parameters(seed=0)
    proper = random_model(small())
    proper.reset_parameters(seed=0)
    ids = random_ids(small(), 1, 13)
    assert (model(ids) - proper(ids)).abs().max() > 1e-6
