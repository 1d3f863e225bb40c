"""What the study prints as cost is what the code computes, stores and reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paper.costs import (
    activated_parameters,
    bytes_per_token,
    multiply_adds,
    stored_values,
    trained_parameters,
)
from benchmarks.paper.study import SCALES
from molkv_export.bundle import export
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint, save
from molkv_model.config import ModelConfig
from molkv_model.expert_mixing import windowed_attention
from molkv_model.modeling import LanguageModel
from molkv_runtime.bundle import Bundle
from tests.model.small_models import random_model, small

CONFIGS = {
    "dense": small("dense"),
    "mole": small("mole"),
    "molkv": small(),
    "gelu": small("dense", feed_forward="gelu"),
    "untied": small(tie_word_embeddings=False),
}


def counted(model: LanguageModel) -> int:
    """Multiply-adds of the matrix products of a step, with a window of experts as a table."""
    config = model.config
    step = torch.randint(0, config.vocab_size, (1, 1))
    with FlopCounterMode(display=False) as counter:
        dense = LanguageModel(config.without_experts())
        dense(step)
    # One position attends over itself: a score and a weighed value for each head.
    own = 2 * config.num_hidden_layers * config.hidden_size
    total = counter.get_total_flops() // 2 - own
    x = torch.randn(1, 1, config.hidden_size)
    for layer in model.model.layers:
        if layer.experts is None:
            continue
        if config.has_keys:
            with FlopCounterMode(display=False) as counter:
                query = layer.experts.query(x)
            total += counter.get_total_flops() // 2
            total += _over_a_full_window(config, query)
        else:
            values = torch.randn(1, 1, config.num_experts, config.hidden_size)
            with FlopCounterMode(display=False) as counter:
                layer.experts._routed(x, values)
            total += counter.get_total_flops() // 2
    return total


def _over_a_full_window(config: ModelConfig, query: torch.Tensor) -> int:
    """Of the last of W positions; blocks hold twice as many rows, half of them masked."""
    window, heads = config.expert_window, config.expert_query_heads
    keys = torch.randn(1, window, config.num_experts, heads, config.expert_key_size)
    values = torch.randn(1, window, config.num_experts, config.hidden_size)
    queries = query.expand(1, window, heads, config.expert_key_size)
    bias = torch.zeros(heads, config.num_experts, window)
    with FlopCounterMode(display=False) as counter:
        windowed_attention(queries, keys, values, bias)
    return counter.get_total_flops() // 2 // window // 2


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_multiply_adds_are_those_of_the_matrix_products(config: ModelConfig) -> None:
    assert multiply_adds(config) == counted(random_model(config))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_are_those_of_the_model_and_of_its_dense_graph(
    config: ModelConfig, tmp_path: Path
) -> None:
    model = random_model(config)
    assert trained_parameters(config) == sum(value.numel() for value in model.parameters())
    save(model, tmp_path)
    embedding = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    plan = make_plan(Checkpoint(tmp_path), "int8")
    assert activated_parameters(config) == plan.dense_parameters - embedding
    assert stored_values(config) * config.vocab_size == plan.expert_parameters


def test_bytes_are_those_of_an_exported_row(tmp_path: Path) -> None:
    config = small()
    save(random_model(config), tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "bundle")
    blob = Bundle.open(tmp_path / "bundle").open_experts()
    assert blob is not None
    assert bytes_per_token(config) == blob.layout.row_stride
    blob.close()


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
