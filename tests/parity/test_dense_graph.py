"""dense.onnx is what docs/graph.md says: checked, self-contained, and of three domains only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import onnx
import pytest

from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.manifest import ModelEntry
from tests.small_models import KINDS

if TYPE_CHECKING:
    from tests.conftest import BundleOf, CheckpointOf

FLOAT, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10


def shapes(values: Any) -> dict[str, tuple[int, list[int | str]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


@pytest.mark.parametrize("kind", KINDS)
def test_graph_passes_the_checker_and_uses_three_domains_only(
    bundle_of: BundleOf, kind: str
) -> None:
    bundle = Bundle.open(bundle_of(kind, "int8"))
    file = bundle.graph_file("onnx")
    onnx.checker.check_model(str(file), full_check=False)
    model = onnx.load(file, load_external_data=False)
    domains = {node.domain for node in model.graph.node}
    experts = [node for node in model.graph.node if node.domain == "ai.molkv"]
    used = {"", "com.microsoft"} | ({"ai.molkv"} if kind != "dense" else set())
    assert domains == used
    assert {node.op_type for node in experts} == (set() if kind == "dense" else {"ExpertAttention"})
    assert len(experts) == (0 if kind == "dense" else bundle.manifest.model.num_hidden_layers)
    assert [(f.domain, f.name) for f in model.functions] == (
        [] if kind == "dense" else [("ai.molkv", "ExpertAttention")]
    )
    for function in model.functions:
        assert {node.domain for node in function.node} == {""}
    imported = {entry.domain: entry.version for entry in model.opset_import}
    assert imported == bundle.manifest.backends["onnx"].operators
    assert set(imported) == used


@pytest.mark.parametrize("experts", ["int8", "int4", "f16"])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_outputs_are_the_contracts(bundle_of: BundleOf, kind: str, experts: str) -> None:
    bundle = Bundle.open(bundle_of(kind, experts))
    entry = bundle.manifest.model
    model = onnx.load(bundle.graph_file("onnx"), load_external_data=False)
    cache: list[int | str] = [1, entry.num_key_value_heads, "cache_tokens", entry.head_dim]
    inputs: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (INT64, [1, "tokens"]),
        "position": (INT64, [1]),
        "logits_index": (INT64, ["logits_rows"]),
    }
    outputs: dict[str, tuple[int, list[int | str]]] = {
        "logits": (FLOAT, [1, "logits_rows", entry.vocab_size])
    }
    plane = FLOAT16 if experts == "f16" else INT8
    key_width = entry.expert_query_heads * entry.expert_key_size
    widths = {"key": key_width, "value": entry.hidden_size}
    if kind != "dense":
        inputs["expert_start"] = (INT64, [1])
    for layer in range(entry.num_hidden_layers):
        for part in ("key", "value"):
            inputs[f"past_{part}.{layer}"] = outputs[f"present_{part}.{layer}"] = (FLOAT, cache)
            if kind == "dense" or (part == "key" and kind.startswith("mole")):
                continue
            rows: list[int | str] = ["window_rows", entry.num_experts]
            inputs[f"expert_{part}s.{layer}"] = (plane, [*rows, widths[part]])
            if experts != "f16":
                inputs[f"expert_{part}_scales.{layer}"] = (FLOAT, rows)
            if experts == "int4" and part == "value":
                inputs[f"expert_values.{layer}"] = (UINT8, [*rows, widths[part] // 2])
                inputs[f"expert_value_scales.{layer}"] = (FLOAT16, [*rows, widths[part] // 32])
    assert shapes(model.graph.input) == inputs
    assert shapes(model.graph.output) == outputs


@pytest.mark.parametrize("kind", KINDS)
def test_expert_networks_are_not_in_the_graph(bundle_of: BundleOf, kind: str) -> None:
    model = onnx.load(bundle_of(kind, "int8") / "dense.onnx", load_external_data=False)
    spent = ("up_proj", "down_proj", "key_proj", "key_norm.weight", "norm.weight")
    for tensor in model.graph.initializer:
        assert not tensor.name.endswith(tuple(f".experts.{name}" for name in spent))


@pytest.mark.parametrize("kind", KINDS)
def test_manifest_and_graph_have_the_checkpoints_config_without_what_only_training_knows(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    config = Checkpoint(checkpoint_of(kind)).config.to_json()
    config.pop("expert_age_start", None)
    assert [field.name for field in msgspec.structs.fields(ModelEntry)] == list(config)
    bundle = Bundle.open(bundle_of(kind, "int8"))
    entry = bundle.manifest.model
    assert msgspec.to_builtins(entry) == config
    graph = onnx.load(bundle.graph_file("onnx"), load_external_data=False)
    properties = {prop.key: prop.value for prop in graph.metadata_props}
    assert json.loads(properties["molkv.config"]) == config
    assert entry.head_dim == config["hidden_size"] // config["num_attention_heads"]


def test_weights_lie_page_aligned_in_one_data_file(bundle_of: BundleOf) -> None:
    folder = bundle_of("molkv", "int8")
    model = onnx.load(folder / "dense.onnx", load_external_data=False)
    external = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    ]
    assert {place["location"] for place in external} == {"dense.onnx.data"}
    assert all(int(place["offset"]) % 4096 == 0 for place in external)
    end = max(int(place["offset"]) + int(place["length"]) for place in external)
    assert end == (folder / "dense.onnx.data").stat().st_size
