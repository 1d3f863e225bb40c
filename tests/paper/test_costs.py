"""What the study prints as cost is what the code computes, stores and reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paper.costs import (
    activated_parameters,
    bytes_per_token,
    multiply_adds,
    stored_values,
    trained_parameters,
)
from benchmarks.paper.study import SCALES
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint, save
from molkv_model.config import ModelConfig
from molkv_model.expert_mixing import windowed_gates
from molkv_model.modeling import LanguageModel
from tests.model.small_models import random_model, small

CONFIGS = {
    "dense": small("dense"),
    "mole": small("mole"),
    "molkv": small(),
    "gelu": small("dense", feed_forward="gelu"),
    "untied": small(tie_word_embeddings=False),
}


def products(compute: Callable[[], object]) -> int:
    """Multiply-adds of the matrix products that a call does."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops() // 2


def counted(model: LanguageModel) -> int:
    """Of a step: the linear maps of the backbone, and the experts as a table of a full window."""
    config = model.config
    hidden = torch.randn(1, config.hidden_size)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    experts = [layer.experts for layer in model.model.layers if layer.experts is not None]
    total = sum(products(partial(module, torch.randn(1, module.in_features))) for module in linear)
    if model.lm_head is None:
        total += products(lambda: hidden @ model.head_weight.T)
    for layer_experts in experts:
        if config.has_keys:
            total += _over_a_full_window(config)
        else:
            values = torch.randn(1, 1, config.num_experts, config.hidden_size)
            total += products(partial(_mixed, values, layer_experts.router(hidden[None])))
    return total


def _mixed(values: Tensor, scores: Tensor) -> Tensor:
    """What `LookupExperts` does with the router's scores."""
    return torch.einsum("btn,btnd->btd", scores, values)


def _over_a_full_window(config: ModelConfig) -> int:
    """Of the last of W positions; blocks hold twice as many rows, half of them masked."""
    window, heads = config.expert_window, config.expert_query_heads
    query = torch.randn(1, window, heads, config.expert_key_size)
    keys = torch.randn(1, window, config.num_experts, heads, config.expert_key_size)
    values = torch.randn(1, window, config.num_experts, config.hidden_size)
    bias = torch.zeros(heads, config.num_experts, window)
    gates = partial(windowed_gates, query, keys, values, bias, torch.sigmoid)
    return products(gates) // window // 2


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_multiply_adds_are_those_of_the_matrix_products(config: ModelConfig) -> None:
    assert multiply_adds(config) == counted(random_model(config))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_and_bytes_are_those_of_the_model_and_of_its_export(
    config: ModelConfig, tmp_path: Path
) -> None:
    model = random_model(config)
    assert trained_parameters(config) == sum(value.numel() for value in model.parameters())
    save(model, tmp_path)
    embedding = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    plan = make_plan(Checkpoint(tmp_path), "int8")
    assert activated_parameters(config) == plan.dense_parameters - embedding
    assert stored_values(config) * config.vocab_size == plan.expert_parameters
    assert bytes_per_token(config) == plan.bytes_per_token


def test_dense_models_read_nothing() -> None:
    assert (bytes_per_token(small("dense")), stored_values(small("dense"))) == (0, 0)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_three_models_of_a_scale_cost_the_same(scale: Any) -> None:
    molkv, mole, dense = scale.molkv(), scale.mole(), scale.dense()
    assert stored_values(mole) == stored_values(molkv)
    assert bytes_per_token(mole) == pytest.approx(bytes_per_token(molkv), rel=0.05)
    for model in (mole, dense):
        assert activated_parameters(model) == pytest.approx(activated_parameters(molkv), rel=0.002)
        changed = {"intermediate_size", "architecture"}
        for field in dataclasses.fields(model):
            if field.name not in changed and "expert" not in field.name:
                assert getattr(model, field.name) == getattr(molkv, field.name)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_one_molkv_of_a_scale_reads_no_more_than_mole(scale: Any) -> None:
    molkv, mole = scale.molkv_of_moles_bytes(), scale.mole()
    assert 0.95 * bytes_per_token(mole) < bytes_per_token(molkv) <= bytes_per_token(mole)
    assert stored_values(molkv) <= stored_values(mole)
    assert activated_parameters(molkv) == pytest.approx(activated_parameters(mole), rel=0.002)
