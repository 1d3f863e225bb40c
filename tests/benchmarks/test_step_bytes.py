"""What a decode step has to read, counted from the model's sizes."""

from __future__ import annotations

import pytest
from step_bytes import step_bytes

from tests.conftest import BundleOf
from tests.small_models import small_config

FLOAT = 4


@pytest.mark.parametrize(("kind", "context"), [("molkv", 5), ("molkv", 90), ("dense", 90)])
def test_a_step_reads_its_matrices_its_cache_and_its_window(
    bundle_of: BundleOf, kind: str, context: int
) -> None:
    config = small_config(kind)
    layers, width = config.num_hidden_layers, config.hidden_size
    keys = config.expert_query_heads * config.expert_key_size if kind == "molkv" else 0
    cached = 2 * config.num_key_value_heads * config.head_dim
    attention = width * (2 * width + cached)
    shared = 3 * width * config.intermediate_size
    weights = layers * (attention + shared + width * keys) + config.vocab_size * width
    pairs = config.num_experts * min(context, config.expert_window) if kind == "molkv" else 0
    window = pairs * (width + keys + 2 * FLOAT)
    expected = FLOAT * weights + layers * (FLOAT * cached * context + window)
    assert step_bytes(bundle_of(kind), context) == expected
