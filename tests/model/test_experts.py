"""The experts are a table, mixed by one softmax over a window (docs/model.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molkv_model.experts import LookupExperts, windowed_attention
from tests.model.equations import gelu, rms_norm
from tests.model.small_models import random_ids, random_model, small

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def inputs(
    batch: int, length: int, window: int, *, experts: int = 3, heads: int = 2, seed: int = 0
) -> Inputs:
    """Query, keys, values and age bias in float64, at the scale that makes the softmax uneven."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    key_size, hidden = 5, heads * 3
    return (
        random(batch, length, heads, key_size),
        random(batch, length, experts, heads, key_size),
        random(batch, length, experts, hidden),
        random(heads, experts, window),
    )


def restated(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    """The equation of docs/model.md, term by term."""
    batch, length, heads, key_size = query.shape
    _, experts, window = age_bias.shape
    width = values.shape[-1] // heads
    out = torch.zeros(batch, length, values.shape[-1], dtype=values.dtype)
    for b in range(batch):
        for t in range(length):
            for g in range(heads):
                seen = [
                    (j, n) for j in range(length) for n in range(experts) if 0 <= t - j < window
                ]
                scores = torch.stack(
                    [
                        query[b, t, g] @ keys[b, j, n, g] / math.sqrt(key_size)
                        + age_bias[g, n, t - j]
                        for j, n in seen
                    ]
                )
                weights = scores.softmax(0)
                for weight, (j, n) in zip(weights, seen, strict=True):
                    part = slice(g * width, (g + 1) * width)
                    out[b, t, part] += weight * values[b, j, n, part]
    return out


@pytest.mark.parametrize(
    ("length", "window"),
    [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (7, 4), (8, 4), (9, 4), (6, 1), (5, 7)],
)
def test_windowed_attention_is_the_documented_equation(length: int, window: int) -> None:
    given_inputs = inputs(2, length, window)
    torch.testing.assert_close(
        windowed_attention(*given_inputs), restated(*given_inputs), atol=1e-12, rtol=0
    )


@given(
    batch=st.integers(1, 2),
    length=st.integers(1, 9),
    window=st.integers(1, 10),
    experts=st.integers(1, 3),
    heads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_windowed_attention_is_the_documented_equation_whatever_the_shape(
    batch: int, length: int, window: int, experts: int, heads: int, seed: int
) -> None:
    given_inputs = inputs(batch, length, window, experts=experts, heads=heads, seed=seed)
    torch.testing.assert_close(
        windowed_attention(*given_inputs), restated(*given_inputs), atol=1e-12, rtol=0
    )


def ages_off_by_one(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    return restated(query, keys, values, age_bias.roll(1, dims=-1))


def window_one_longer(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    return restated(query, keys, values, torch.cat([age_bias, age_bias[..., -1:]], dim=-1))


def softmax_for_each_token(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    """A softmax over each token's experts, and the mean over the tokens."""
    window = age_bias.shape[-1]
    out = torch.zeros_like(values[:, :, 0])
    for age in range(window):
        single = age_bias[..., age : age + 1]
        past_keys, past_values = keys.roll(age, dims=1), values.roll(age, dims=1)
        out += restated(query, past_keys, past_values, single) / window
    return out


def unscaled(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    return restated(query * math.sqrt(query.shape[-1]), keys, values, age_bias)


def heads_swapped(query: Tensor, keys: Tensor, values: Tensor, age_bias: Tensor) -> Tensor:
    return restated(query.flip(2), keys, values, age_bias)


@pytest.mark.parametrize(
    "wrong",
    [ages_off_by_one, window_one_longer, softmax_for_each_token, unscaled, heads_swapped],
)
def test_a_wrong_formula_does_not_pass_for_the_documented_one(
    wrong: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> None:
    given_inputs = inputs(2, 9, 4)
    late = slice(4, None)  # where every window is full
    right = windowed_attention(*given_inputs)[:, late]
    assert (right - wrong(*given_inputs)[:, late]).abs().max() > 0.05


def test_a_table_row_is_the_documented_function_of_one_embedding_row() -> None:
    config = small()
    experts = random_model(config).double().model.layers[1].experts
    embeddings = torch.randn(7, config.hidden_size, dtype=torch.float64)
    keys, values = experts.table(embeddings)
    weights = experts.state_dict()
    for i, row in enumerate(embeddings):
        u = rms_norm(row, weights["norm.weight"], config.rms_norm_eps)
        for n in range(config.num_experts):
            z = gelu(weights["up_proj"][n] @ u)
            torch.testing.assert_close(values[i, n], weights["down_proj"][n] @ z)
            plain = (weights["key_proj"][n] @ z).view(config.expert_query_heads, -1)
            key = rms_norm(plain, weights["key_norm.weight"], config.rms_norm_eps)
            torch.testing.assert_close(keys[i, n], key)


@pytest.mark.parametrize("scoring", ["key_age", "key"])
def test_the_table_of_the_whole_vocabulary_holds_what_forward_mixes(scoring: str) -> None:
    config = small(expert_scoring=scoring)
    model = random_model(config).double()
    experts = model.model.layers[0].experts
    ids = random_ids(config, 2, 11)
    x = torch.randn(2, 11, config.hidden_size, dtype=torch.float64)
    keys, values = experts.table(model.model.embed_tokens.weight)
    bias = torch.zeros(4, 3, 5, dtype=torch.float64) if scoring == "key" else experts.age_bias
    expected = restated(experts.query(x), keys[ids], values[ids], bias)

    distinct, index = ids.unique(return_inverse=True)
    actual = experts(x, model.model.embed_tokens(distinct), index)

    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


def test_mole_mixes_the_current_tokens_experts_by_its_router() -> None:
    config = small("mole")
    model = random_model(config).double()
    experts = model.model.layers[0].experts
    ids = random_ids(config, 2, 6)
    x = torch.randn(2, 6, config.hidden_size, dtype=torch.float64)
    keys, values = experts.table(model.model.embed_tokens.weight)
    assert keys is None
    actual = experts(x, model.model.embed_tokens.weight, ids)
    for b in range(2):
        for t in range(6):
            weights = (experts.router.weight @ x[b, t]).softmax(0)
            expected = sum(weights[n] * values[ids[b, t], n] for n in range(config.num_experts))
            torch.testing.assert_close(actual[b, t], expected)


@pytest.mark.parametrize("architecture", ["mole", "molkv"])
def test_each_distinct_id_of_a_batch_is_computed_once_a_layer(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(architecture)
    model = random_model(config)
    ids = torch.tensor([[7, 7, 3, 7], [3, 3, 90, 7]])
    shapes = []
    genuine = LookupExperts.table

    def recording(self: LookupExperts, embeddings: Tensor) -> tuple[Tensor | None, Tensor]:
        shapes.append(tuple(embeddings.shape))
        return genuine(self, embeddings)

    monkeypatch.setattr(LookupExperts, "table", recording)
    model(ids)
    assert shapes == [(3, config.hidden_size)] * config.num_hidden_layers


@pytest.mark.parametrize("window", [1, 5, 64])
def test_the_current_tokens_experts_have_most_of_the_weight_at_the_start(window: int) -> None:
    config = small(expert_window=window, max_position_embeddings=64)
    experts = LookupExperts(config)
    experts.reset_parameters(torch.Generator().manual_seed(0))
    length = window
    query = torch.zeros(1, length, 4, 6)
    keys = torch.randn(1, length, 3, 4, 6)
    values = torch.zeros(1, length, 3, 32)
    values[:, -1] = 1.0
    weight_of_current = windowed_attention(query, keys, values, experts.bias())[0, -1]
    assert weight_of_current.min() > 0.5


def test_the_start_is_decided_by_its_seed() -> None:
    config = small()
    first, same, other = LookupExperts(config), LookupExperts(config), LookupExperts(config)
    for experts, seed in ((first, 1), (same, 1), (other, 2)):
        experts.reset_parameters(torch.Generator().manual_seed(seed))
    for name in ("up_proj", "down_proj", "key_proj", "age_bias"):
        assert torch.equal(getattr(first, name), getattr(same, name))
    assert not torch.equal(first.up_proj, other.up_proj)
