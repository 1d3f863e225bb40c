"""What ``dense.mlpackage`` declares: functions, inputs, states, metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from coremltools.models.utils import load_spec
from coremltools.proto import FeatureTypes_pb2

from molkv_export.backends.coreml.graph import CoreMLGraph
from molkv_export.backends.coreml.mil_evaluator import MilProgram
from molkv_export.backends.coreml.package import DECODE, PREFILL, write_dense_graph
from molkv_export.backends.coreml.static_shapes import MULTIPLE, StaticShapes
from molkv_export.errors import ExportError
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import PRESETS
from molkv_runtime.errors import BundleError
from tests.backends.coreml.conftest import CHUNK
from tests.small_models import edit_weights, small_config, write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backends.coreml.conftest import ManifestOf, PackageOf
    from tests.conftest import CheckpointOf


def description(package: Path) -> Any:
    (file,) = package.rglob("*.mlmodel")
    return load_spec(str(file)).description


def shapes_of(features: Any) -> dict[str, list[int]]:
    found = {}
    for feature in features:
        kind = feature.type
        array = kind.multiArrayType
        if kind.WhichOneof("Type") == "stateType":
            array = kind.stateType.arrayType
        found[feature.name] = list(array.shape)
    return found


def test_prefill_and_decode_take_what_the_contract_names(package_of: PackageOf) -> None:
    functions = {part.name: part for part in description(package_of("molkv", "fp16")).functions}
    assert set(functions) == {PREFILL, DECODE}
    rows = {
        f"expert_{kind}s_{layer}": width
        for layer in (0, 1)
        for kind, width in (("key", 16), ("value", 64))
    }
    for name, tokens in ((PREFILL, CHUNK), (DECODE, 1)):
        expected: dict[str, list[int]] = {"input_ids": [1, tokens], "position": [1]}
        if name == PREFILL:
            expected["logits_index"] = [1]
        expected |= {row: [tokens, 3, width] for row, width in rows.items()}
        assert shapes_of(functions[name].input) == expected
        (logits,) = functions[name].output
        assert logits.name == "logits"
        assert logits.type.multiArrayType.dataType == FeatureTypes_pb2.ArrayFeatureType.FLOAT32


def test_both_functions_declare_the_same_states(package_of: PackageOf) -> None:
    """Else they could not take turns on one."""
    prefill, decode = (
        shapes_of(part.state) for part in description(package_of("molkv", "fp16")).functions
    )
    assert prefill == decode
    assert len(prefill) == 8
    for shape in prefill.values():
        assert [size % MULTIPLE for size in shape[-2:]] == [0, 0]


@pytest.mark.parametrize(
    ("kind", "inputs", "states"),
    [("mole", {"expert_values_0", "expert_values_1"}, 4), ("dense", set(), 4)],
)
def test_models_without_keys_keep_no_window(
    package_of: PackageOf, kind: str, inputs: set[str], states: int
) -> None:
    decode = MilProgram(package_of(kind, "fp16")).function(DECODE)
    assert set(decode.inputs) == {"input_ids", "position"} | inputs
    assert len(decode.states) == states


def test_the_functions_share_their_weights(package_of: PackageOf) -> None:
    package = package_of("molkv", "fp16")
    (weights,) = package.rglob("weight.bin")
    decode = MilProgram(package).function(DECODE)
    once = 2 * sum(
        value.size for value in decode._constants.values() if isinstance(value, np.ndarray)
    )
    assert once * 0.9 < weights.stat().st_size < once * 1.2


@pytest.mark.parametrize("name", [*PRESETS, "small"])
def test_sizes_are_padded_to_what_the_neural_engine_takes(name: str) -> None:
    config = PRESETS[name] if name in PRESETS else small_config("molkv")
    shapes = StaticShapes.of(config)
    for size in (
        *(shapes.cache_tokens, shapes.window_rows, shapes.head_size),
        *(shapes.key_size, shapes.value_size, shapes.intermediate_size),
    ):
        assert size % MULTIPLE == 0
    assert shapes.cache_tokens >= config.max_position_embeddings
    assert shapes.window_rows >= config.expert_window
    assert shapes.chunk <= shapes.cache_tokens


def test_the_package_states_what_it_was_lowered_from(
    package_of: PackageOf, checkpoint_of: CheckpointOf
) -> None:
    metadata = description(package_of("molkv", "int8")).metadata.userDefined
    assert metadata["molkv.identity"] == Checkpoint(checkpoint_of("molkv")).identity().hex()
    assert metadata["molkv.dense"] == "int8"
    assert json.loads(metadata["molkv.limits"]) == {
        "chunk": CHUNK,
        "context": 96,
        "cache_tokens": 96,
        "window": 8,
    }
    assert metadata["molkv.compute_units"] == "cpuAndGPU"


def test_another_models_package_is_refused(package_of: PackageOf, manifest_of: ManifestOf) -> None:
    with pytest.raises(BundleError, match=r"identity is .*, the manifest says"):
        CoreMLGraph(package_of("mole", "fp16"), manifest_of("molkv", "fp16"))


def test_another_precisions_package_is_refused(
    package_of: PackageOf, manifest_of: ManifestOf
) -> None:
    with pytest.raises(BundleError, match="dense is fp16, the manifest says int8"):
        CoreMLGraph(package_of("molkv", "fp16"), manifest_of("molkv", "int8"))


@pytest.mark.parametrize("name", ["chunk", "context", "cache_tokens", "window"])
def test_a_package_of_other_limits_is_refused(
    package_of: PackageOf, manifest_of: ManifestOf, name: str
) -> None:
    manifest = manifest_of("molkv", "fp16")
    entry = manifest.backends["coreml"]
    assert entry.limits is not None
    limits = msgspec.structs.replace(entry.limits, **{name: 7})
    changed = {"coreml": msgspec.structs.replace(entry, limits=limits)}
    with pytest.raises(BundleError, match=rf"limits\.{name} is \d+, the manifest says 7"):
        CoreMLGraph(
            package_of("molkv", "fp16"), msgspec.structs.replace(manifest, backends=changed)
        )


def test_a_weight_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", "dense")
    edit_weights(folder, "model.layers.1.mlp.up_proj.weight", 7e4)
    with pytest.raises(ExportError, match=r"layers\.1\.mlp\.up_proj.*70000.*65504"):
        write_dense_graph(Checkpoint(folder), tmp_path, "int8", "00")
    assert not list(tmp_path.glob("*.mlpackage"))
    assert not list(tmp_path.glob(".coreml-*"))
