"""docs/model.md and docs/graph.md are true: their tables and programs are compared with the code.

Also: every link, and every repository path in backticks, of every document leads somewhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args, get_type_hints

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from safetensors.torch import save_file

import molkv_model
from molkv_export.backends.catalogue import BACKENDS
from molkv_export.backends.lowered_graph import graph_properties
from molkv_export.backends.onnx import required_operators, write_dense_graph
from molkv_export.backends.onnx.expert_attention_function import INPUTS
from molkv_export.backends.onnx.quantization import BITS, LARGEST_BLOCK
from molkv_export.bundle import export
from molkv_export.dense_graph import is_expert_table_tensor
from molkv_export.expert_attention import reference_expert_attention
from molkv_export.expert_blob import SLICE_ROWS, row_geometry
from molkv_export.golden import GREEDY_TOKENS
from molkv_export.op_parity import OP_TOLERANCE, OpCase, make_case
from molkv_export.plan import make_plan
from molkv_export.rounded_ladder import LIMITS
from molkv_export.verify import verify
from molkv_model import PRESETS, ModelConfig
from molkv_model.checkpoint import Checkpoint
from molkv_model.config import STUDIED
from molkv_model.experts import windowed_attention
from molkv_model.modeling import LanguageModel
from molkv_model.published_mole import published_names
from molkv_runtime.blob import RowBatch
from molkv_runtime.bundle import Bundle
from molkv_runtime.expert_attention import expert_attention as numpy_expert_attention
from molkv_runtime.golden import LOGITS_TOLERANCE, RELATIVE_LOGITS_TOLERANCE, Golden
from molkv_runtime.manifest import (
    DensePrecision,
    EmbeddingPrecision,
    LimitsEntry,
    Manifest,
    ModelEntry,
    ParityEntry,
)
from molkv_runtime.row_geometry import ExpertPrecision
from molkv_runtime.row_layout import RowLayout
from molkv_runtime.window import ExpertWindow

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
GRAPH = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "android_demo/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

MOLKV = ModelConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=96,
    num_experts=3,
    expert_intermediate_size=24,
    expert_key_size=8,
    expert_query_heads=2,
    expert_window=5,
)
CONFIGS = {
    "molkv": MOLKV,
    "key scoring": dataclasses.replace(MOLKV, expert_scoring="key"),
    "untied gelu": dataclasses.replace(MOLKV, tie_word_embeddings=False, feed_forward="gelu"),
    "mole": MOLKV.as_mole(),
    "dense": MOLKV.without_experts(),
}


def tables(document: str) -> Iterator[list[list[str]]]:
    """Every table's rows, heading first, as cells without backticks."""
    for block in re.findall(r"(?:^\|.*\|\n)+", document, re.MULTILINE):
        rows = [
            [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
            for line in block.splitlines()
        ]
        yield [rows[0], *rows[2:]]


def table(document: str, *heading: str) -> list[list[str]]:
    """Rows of the one table with these first headings."""
    (found,) = [rows[1:] for rows in tables(document) if rows[0][: len(heading)] == [*heading]]
    return found


def program(document: str, marker: str) -> str:
    blocks: list[str] = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    (found,) = [block for block in blocks if marker in block]
    return found


def symbols(config: ModelConfig) -> dict[str, int]:
    """The letters that the documents' shapes use."""
    return {
        "1": 1,
        "V": config.vocab_size,
        "d": config.hidden_size,
        "d/2": config.hidden_size // 2,
        "d/32": config.hidden_size // 32,
        "m": config.intermediate_size,
        "h": config.head_dim,
        "H": config.num_attention_heads * config.head_dim,
        "N": config.num_experts,
        "w": config.expert_intermediate_size,
        "G": config.expert_query_heads,
        "dk": config.expert_key_size,
        "W": config.expert_window,
    }


def shape(text: str, letters: dict[str, int]) -> list[int | str]:
    """``[1, tokens, G·dk]`` with the letters replaced; other words stay."""
    extents: list[int | str] = []
    for extent in text.strip("[]").split(", "):
        factors = [letters.get(factor) for factor in extent.split("·")]
        known = [factor for factor in factors if factor is not None]
        extents.append(math.prod(known) if len(known) == len(factors) else extent)
    return extents


def facts(
    config: ModelConfig,
    experts: ExpertPrecision = "int8",
    embedding: EmbeddingPrecision | None = None,
) -> set[str]:
    """What a "there if" column may ask for."""
    conditions = {
        "always": True,
        "": True,
        "untied": not config.tie_word_embeddings,
        "swiglu": config.feed_forward == "swiglu",
        "experts": config.has_experts,
        "molkv": config.has_keys,
        "key_age": config.has_keys and config.expert_scoring == "key_age",
        "mole": config.architecture == "mole",
        "int8": experts == "int8",
        "int4": experts == "int4",
        "not int4": experts != "int4",
        "not f16": experts != "f16",
        "embedding: graph": embedding is None,
        "embedding: storage": embedding is not None,
        "checkpoint": False,
    }
    return {name for name, holds in conditions.items() if holds}


def applies(condition: str, holding: set[str]) -> bool:
    return set(condition.split(", ")) <= holding


def layered(name: str, config: ModelConfig) -> list[str]:
    layers = config.num_hidden_layers if "{l}" in name else 1
    return [name.replace("{l}", str(layer)) for layer in range(layers)]


def save_random(config: ModelConfig, folder: Path) -> Checkpoint:
    model = LanguageModel(config)
    model.reset_parameters(seed=0)
    molkv_model.save(model, folder)
    return Checkpoint(folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Bundle]:
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = save_random(MOLKV, folder / "checkpoint")
    return checkpoint, export(checkpoint.path, folder / "bundle")


# docs/model.md


def test_configuration_table_has_every_field_with_its_default() -> None:
    documented = {row[0]: row[1] for row in table(MODEL, "field", "default", "symbol")}
    defaults = ModelConfig()
    names = [field.name for field in dataclasses.fields(ModelConfig)]
    assert list(documented) == [name for name in names if name not in STUDIED]
    assert documented == {name: str(getattr(defaults, name)) for name in documented}


def test_table_of_studied_fields_has_every_one_with_its_default() -> None:
    documented = {row[0]: row[1] for row in table(MODEL, "studied field", "default")}
    assert documented == {name: str(value) for name, value in STUDIED.items()}
    assert {name: getattr(ModelConfig(), name) for name in STUDIED} == STUDIED


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_tensor_table_is_the_state_dict(config: ModelConfig) -> None:
    letters = symbols(config) | {"K": config.num_key_value_heads * config.head_dim}
    holding = facts(config)
    documented = {
        layer_name: (tuple(shape(extents, letters)), ends == "table")
        for name, extents, condition, ends in table(MODEL, "tensor", "shape")
        if applies(condition, holding)
        for layer_name in layered(name, config)
    }
    with torch.device("meta"):
        tensors = LanguageModel(config).state_dict()
    assert documented == {
        name: (tuple(value.shape), is_expert_table_tensor(name)) for name, value in tensors.items()
    }


def test_preset_table_is_the_presets() -> None:
    rows = table(MODEL, "preset", "V")
    assert [row[0] for row in rows] == list(PRESETS)
    for name, *cells in rows:
        config = PRESETS[name]
        letters = symbols(config)
        tied = "yes" if config.tie_word_embeddings else "no"
        heads, context = config.num_attention_heads, config.max_position_embeddings
        shown = ["V", "d", "m", config.num_hidden_layers, heads, context, tied]
        shown += ["N", "w", "G", "dk", "W"]
        assert cells == [str(letters.get(str(value), value)) for value in shown]
        assert config.num_key_value_heads == heads
        assert (config.feed_forward, config.expert_scoring) == ("swiglu", "key_age")


def test_parameter_counts_of_the_presets() -> None:
    counted = []
    for name, config in PRESETS.items():
        for variant in (config, config.as_mole(), config.without_experts()):
            with torch.device("meta"):
                tensors = LanguageModel(variant).state_dict()
            sizes = {tensor: value.numel() for tensor, value in tensors.items()}
            network = sum(sizes[tensor] for tensor in sizes if is_expert_table_tensor(tensor))
            width = variant.hidden_size + variant.expert_query_heads * variant.expert_key_size
            per_token = variant.num_hidden_layers * variant.num_experts * width
            total = sum(sizes.values())
            numbers = [total, total - network, network, per_token * variant.vocab_size]
            for precision in ("int8", "int4", "f16"):
                stride = 0
                if variant.has_experts:
                    stride = RowLayout.of(row_geometry(variant, precision)).row_stride
                numbers.append(stride)
            counted.append([name, variant.architecture, *(f"{number:,}" for number in numbers)])
    assert table(MODEL, "preset", "architecture") == counted


def test_plan_counts_as_the_document_does(exported: tuple[Checkpoint, Bundle]) -> None:
    plan = make_plan(exported[0], "int8")
    width = MOLKV.hidden_size + MOLKV.expert_query_heads * MOLKV.expert_key_size
    values = MOLKV.vocab_size * MOLKV.num_hidden_layers * MOLKV.num_experts * width
    assert plan.expert_parameters == values


def test_age_bias_starts_where_the_document_says() -> None:
    model = LanguageModel(PRESETS["tiny"])
    model.reset_parameters(seed=0)
    bias = model.state_dict()["model.layers.0.experts.age_bias"]
    for head, of_experts in enumerate(bias, start=1):
        for ages in of_experts:
            falling = -torch.arange(1, len(ages)) / 2.0 ** (head + 1)
            torch.testing.assert_close(ages[1:], falling)
            torch.testing.assert_close(ages.softmax(0)[0], torch.tensor(0.8))
    words = " ".join(MODEL.split())
    assert "starts with -age / 2^(g+1) for the past" in words
    assert "four times the past's weight: 80 %." in words


@pytest.mark.parametrize("length", [1, 5, 6, 17])
def test_windowed_attention_in_blocks_is_the_equation(length: int) -> None:
    """Any number of blocks, and lengths that fill the last one or do not."""
    case = make_case(row_geometry(MOLKV, "f16"), MOLKV.expert_window, tokens=length, rows=length)
    expected = numpy_expert_attention(case.query, case.rows, case.age_bias)
    heads, key_size = case.query.shape[1:]
    assert case.rows.keys is not None
    keys = torch.from_numpy(case.rows.keys.astype(np.float32))[None]
    blocks = windowed_attention(
        torch.from_numpy(case.query)[None],
        torch.unflatten(keys, -1, (heads, key_size)),
        torch.from_numpy(case.rows.values.astype(np.float32))[None],
        torch.from_numpy(case.age_bias),
    )
    assert np.abs(blocks[0].numpy() - expected).max() <= OP_TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identity_program(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel(MOLKV)
    model.reset_parameters(seed=0)
    molkv_model.save(model, tmp_path / "checkpoint", dtype=dtype)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(program(MODEL, "hashlib"), names)  # noqa: S102
    assert names["identity"] == Checkpoint("checkpoint").identity().hex()
    molkv_model.save(model, tmp_path / "shards", dtype=dtype, shard_bytes=4096)
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    assert names["identity"] == Checkpoint("shards").identity().hex()


def test_published_names_and_defaults(tmp_path: Path) -> None:
    """A checkpoint written as the table says is read, with the defaults that the page states."""
    config = dataclasses.replace(
        CONFIGS["mole"],
        num_key_value_heads=2,
        feed_forward="gelu",
        expert_intermediate_size=40,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    model = LanguageModel(config)
    model.reset_parameters(seed=0)
    documented = {
        name.replace("{l}", str(layer)): re.sub(", stacked over n$", "", stored).replace(
            "{l}", str(layer)
        )
        for name, stored in table(MODEL, "tensor here")
        for layer in range(config.num_hidden_layers)
    }
    published: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        stored = documented.get(name, name)
        parts = value if "{n}" in stored else [value]
        names = [stored.replace("{n}", str(n)) for n in range(len(parts))]
        assert names == published_names(name, config)
        published |= {name: part.clone() for name, part in zip(names, parts, strict=True)}
    save_file(published, tmp_path / "model.safetensors")
    fields = {
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": True,
        "num_experts": config.num_experts,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
    }
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    loaded = Checkpoint(tmp_path)
    assert loaded.config == config
    assert all(
        torch.equal(loaded.tensor(name), value) for name, value in model.state_dict().items()
    )


def test_model_card_is_named() -> None:
    section = MODEL.split("## The embedded tiny model\n")[1]
    assert "\nSee the model card in model/molkv_model/checkpoints/tiny/README.md.\n" in section


# docs/graph.md


class GraphCase(NamedTuple):
    config: ModelConfig
    experts: ExpertPrecision
    embedding: EmbeddingPrecision | None = None


GRAPH_CASES = {
    f"{name} {experts}": GraphCase(config, experts)
    for name, config in CONFIGS.items()
    for experts in get_args(ExpertPrecision)
} | {
    f"{name}, embedding in the rows": GraphCase(config, "int8", "f16")
    for name, config in CONFIGS.items()
    if config.has_experts
}


def declared(values: Any) -> dict[str, tuple[str, list[int | str]]]:
    """Type and shape of graph inputs or outputs, as the file declares them."""
    return {
        value.name: (
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            [extent.dim_param or extent.dim_value for extent in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


@pytest.mark.parametrize("case", GRAPH_CASES.values(), ids=GRAPH_CASES)
def test_graph_is_as_documented(case: GraphCase, tmp_path: Path) -> None:
    config, experts, embedding = case
    checkpoint = save_random(config, tmp_path / "checkpoint")
    identity = checkpoint.identity().hex()
    graph = write_dense_graph(checkpoint, tmp_path, experts, identity, embedding=embedding)
    model = onnx.load(graph.files[0], load_external_data=False)

    letters = symbols(config) | {"K": config.num_key_value_heads}
    holding = facts(config, experts, embedding)
    plane = {"int8": "int8", "int4": "int8", "f16": "float16"}[experts]
    dtypes = {"plane": plane, "cache": "float32"}

    def documented(heading: str) -> dict[str, tuple[str, list[int | str]]]:
        return {
            layer_name: (dtypes.get(dtype, dtype), shape(extents, letters))
            for name, dtype, extents, condition in table(
                GRAPH, heading, "type", "shape", "there if"
            )
            if applies(condition, holding)
            for layer_name in layered(name, config)
        }

    assert declared(model.graph.input) == documented("input")
    assert declared(model.graph.output) == documented("output")

    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties.pop("molkv.embedding", None) == ("storage" if embedding else None)
    always = [row[0] for row in table(GRAPH, "property") if "absent" not in row[1]]
    assert list(properties) == always
    assert properties["molkv.identity"] == identity
    assert properties["molkv.experts"] == (experts if config.has_experts else "none")
    assert properties["molkv.dense"] == properties["molkv.cache"] == "fp32"
    assert json.loads(properties["molkv.config"]) == config.to_json()

    check_operators(model, config)


def check_operators(model: onnx.ModelProto, config: ModelConfig) -> None:
    sets = {
        "" if domain == "ai.onnx" else domain: (int(version), used)
        for domain, version, used in table(GRAPH, "operator set")
        if config.has_experts or domain != "ai.molkv"
    }
    versions = {domain: version for domain, (version, _) in sets.items()}
    assert {entry.domain: entry.version for entry in model.opset_import} == versions
    assert required_operators(config) == versions
    used = {(node.domain, node.op_type) for node in model.graph.node}
    assert {domain for domain, _ in used} == set(sets)
    microsoft = {operator for domain, operator in used if domain == "com.microsoft"}
    named = set(sets["com.microsoft"][1].split("; ")[0].split(", "))
    assert microsoft == named - ({"QuickGelu"} if config.feed_forward == "gelu" else set())
    newest = max(
        onnx.defs.get_schema(operator, 23).since_version for domain, operator in used if not domain
    )
    assert newest == onnx.defs.get_schema("RMSNormalization", 23).since_version == 23
    functions = [(function.domain, function.name) for function in model.functions]
    assert functions == ([("ai.molkv", "ExpertAttention")] if config.has_experts else [])


def test_head_size_limit(tmp_path: Path) -> None:
    config = dataclasses.replace(MOLKV, num_attention_heads=8)
    checkpoint = save_random(config, tmp_path / "checkpoint")
    (limit,) = re.findall(r"heads must be a multiple of (\d+) wide", GRAPH)
    assert config.head_dim % int(limit)
    with pytest.raises(Exception, match=f"multiples of {limit} only"):
        write_dense_graph(checkpoint, tmp_path, "int8", "")


def test_operator_inputs_are_those_of_both_definitions() -> None:
    rows = table(GRAPH, "input", "type", "shape", "")
    node_rows = table(GRAPH, "input of the node", "type", "shape", "")
    assert (*(row[0] for row in rows), *(row[0] for row in node_rows[1:])) == INPUTS
    schema = torch.ops.molkv.expert_attention.default._schema
    assert schema.name == "molkv::expert_attention"
    optional = {argument.name: "Optional" in str(argument.type) for argument in schema.arguments}
    assert {row[0]: row[3] == "optional" for row in rows} == optional
    assert [row[0] for row in rows] == list(optional)


OP_CASES = {
    "decode, int8": make_case(row_geometry(MOLKV, "int8"), 5, tokens=1, rows=5),
    "prefill, int4": make_case(row_geometry(MOLKV, "int4"), 5, tokens=4, rows=8, seed=6),
    "prefill, float16": make_case(row_geometry(MOLKV, "f16"), 5, tokens=4, rows=8, seed=1),
    "start of a sequence": make_case(row_geometry(MOLKV, "int8"), 5, tokens=3, rows=3, seed=2),
    "padding": make_case(row_geometry(MOLKV, "int8"), 5, tokens=2, rows=6, start=3, seed=3),
    "more rows than needed": make_case(row_geometry(MOLKV, "int8"), 5, tokens=1, rows=9, seed=4),
    "mole": make_case(row_geometry(CONFIGS["mole"], "int8"), 1, tokens=3, rows=3, seed=5),
}


def documented_formula() -> Callable[..., list[list[float]]]:
    names: dict[str, Any] = {}
    exec(program(GRAPH, "def expert_attention"), names)  # noqa: S102
    formula: Callable[..., list[list[float]]] = names["expert_attention"]
    return formula


@pytest.mark.parametrize("case", OP_CASES.values(), ids=OP_CASES)
def test_formula_is_what_numpy_and_torch_compute(case: OpCase) -> None:
    expected = np.array(documented_formula()(**case.feeds))
    ours: list[NDArray[np.float32]] = [
        numpy_expert_attention(case.query, case.rows, case.age_bias, case.start)
    ]
    tensors = [None if array is None else torch.from_numpy(array) for array in case.feeds.values()]
    ours.append(reference_expert_attention(*tensors).numpy())
    for output in ours:
        assert output.shape == expected.shape
        assert np.abs(output - expected).max() <= OP_TOLERANCE * np.abs(expected).max()


def test_formula_with_the_bias_reversed_differs() -> None:
    case = OP_CASES["decode, int8"]
    changed = documented_formula()(**{**case.feeds, "age_bias": case.age_bias[:, :, ::-1]})
    expected = numpy_expert_attention(case.query, case.rows, case.age_bias, case.start)
    assert np.abs(np.array(changed) - expected).max() > OP_TOLERANCE * np.abs(expected).max()


def test_mole_is_the_operator_with_one_hot_keys() -> None:
    case = OP_CASES["mole"]
    count = case.rows.values.shape[1]
    router = case.query[:, 0] / math.sqrt(count)
    weights = np.exp(router - router.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    assert case.rows.value_scales is not None
    values = case.rows.values * case.rows.value_scales[..., None]
    expected = np.einsum("tn,tnd->td", weights, values)
    no_bias = np.zeros_like(case.age_bias)
    output = numpy_expert_attention(case.query, case.rows, no_bias, case.start)
    assert np.abs(output - expected).max() <= OP_TOLERANCE * np.abs(expected).max()


def field_names(record: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """``a``, ``a.b`` for a nested record, ``a.*.b`` for a list or map of records."""
    for name, hint in get_type_hints(record).items():
        yield prefix + name
        for part in (hint, *get_args(hint)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                many = getattr(hint, "__origin__", None) in (list, dict)
                if part is not ModelEntry:
                    yield from field_names(part, f"{prefix}{name}{'.*.' if many else '.'}")


def section(document: str, heading: str) -> str:
    return re.split(r"^#+ ", document.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("heading", "record"), [("manifest.json", Manifest), ("golden.json", Golden)]
)
def test_field_table_is_the_record(heading: str, record: type[msgspec.Struct]) -> None:
    rows = table(section(GRAPH, heading), "field")
    assert [row[0] for row in rows] == list(field_names(record))


def test_manifest_model_is_the_configuration() -> None:
    configuration = [row[0] for row in table(MODEL, "field", "default")]
    assert list(get_type_hints(ModelEntry)) == ["model_type", *configuration]


def test_bundle_table_is_what_export_writes(exported: tuple[Checkpoint, Bundle]) -> None:
    documented = {row[0] for row in table(section(GRAPH, "The bundle"), "file")}
    written = {file.name for file in exported[1].path.iterdir()}
    assert written == documented - {"tokenizer.json"}


def test_backend_table_is_what_export_offers() -> None:
    rows = table(GRAPH, "--backend")
    documented = {row[0]: tuple(row[2].split(", ")) for row in rows}
    assert documented == {name: backend.precisions for name, backend in BACKENDS.items()}


def test_property_table_is_what_graphs_carry() -> None:
    documented = [row[0] for row in table(GRAPH, "property")]
    limits = LimitsEntry(chunk=1, context=1, cache_tokens=1, window=1)
    made = graph_properties(
        MOLKV,
        identity="00",
        experts="int8",
        dense="fp32",
        cache="fp32",
        limits=limits,
        embedding="f16",
    )
    assert documented == list(made)


def check_rungs(bundle: Bundle, verdict: ParityEntry, holding: set[str]) -> None:
    documented = [
        (name, passes == "least", limit)
        for name, passes, limit, needs in table(GRAPH, "rung")
        if applies(needs, holding)
    ]
    assert [(rung.name, rung.at_least) for rung in verdict.rungs] == [row[:2] for row in documented]
    tolerances = {case.logits_tolerance for case in bundle.load_golden().cases}
    for rung, (_, _, limit) in zip(verdict.rungs, documented, strict=True):
        assert rung.limit in (tolerances if limit == "tolerance" else {float(limit)})
    assert verdict.passed


def test_ladder_table_is_what_verify_climbs(exported: tuple[Checkpoint, Bundle]) -> None:
    _, bundle = exported
    assert bundle.manifest.parity is not None
    check_rungs(bundle, bundle.manifest.parity, facts(MOLKV) | {"checkpoint"})
    check_rungs(bundle, verify(bundle), facts(MOLKV))


def test_ladder_of_quantized_graphs(tmp_path: Path) -> None:
    checkpoint = save_random(MOLKV, tmp_path / "checkpoint")
    bundle = export(checkpoint.path, tmp_path / "bundle", dense="int8", cache="int8")
    rows = {
        name: (passes, limit)
        for name, passes, limit, _ in table(GRAPH, "rung of a quantized graph")
    }
    assert bundle.manifest.parity is not None
    rungs = [rung for rung in bundle.manifest.parity.rungs if rung.name[0] in "456"]
    assert [rung.name for rung in rungs] == [name for name in rows if name[0] != "3"]
    (used,) = [row[2] for row in table(GRAPH, "operator set") if row[0] == "com.microsoft"]
    named = set(used.replace("; quantized also ", ", ").split(", "))
    graph = onnx.load(bundle.graph_file("onnx"), load_external_data=False).graph
    assert {node.op_type for node in graph.node if node.domain == "com.microsoft"} == named

    precision = LIMITS["onnx"]["int8"]
    by_precision = {
        "5 logits: KL divergence": precision.nats,
        "5 logits: same top-1": precision.same_top1,
    }
    tolerances = {case.logits_tolerance for case in bundle.load_golden().cases}
    for rung in rungs:
        passes, limit = rows[rung.name]
        assert rung.at_least == (passes == "least")
        if limit == "by precision":
            assert rung.limit == by_precision[rung.name]
            continue
        figure, unit = limit.split(" ", 1)
        number = float(figure.replace(",", ""))
        limits = {number} if unit == "nats" else {number * tolerance for tolerance in tolerances}
        assert rung.limit in limits


def test_precision_tables_are_the_limits_and_the_blocks() -> None:
    for dense, cache, nats, same, *_ in table(GRAPH, "--dense", "--cache"):
        limits = LIMITS["onnx"][cast("DensePrecision", dense)]
        assert (float(nats), float(same)) == (limits.nats, limits.same_top1)
        assert cache in BACKENDS["onnx"].caches
    blocks = {row[0]: (int(row[2]), float(row[3])) for row in table(GRAPH, "--dense", "a weight")}
    assert blocks == {
        dense: (block, round(BITS[dense] / 8 + 4 / block, 2))
        for dense, block in LARGEST_BLOCK.items()
    }


def test_ladder_of_a_dense_model(tmp_path: Path) -> None:
    checkpoint = save_random(CONFIGS["dense"], tmp_path / "checkpoint")
    bundle = export(checkpoint.path, tmp_path / "bundle")
    assert bundle.manifest.parity is not None
    check_rungs(bundle, bundle.manifest.parity, facts(CONFIGS["dense"]) | {"checkpoint"})
    assert bundle.load_golden().rows == []


def test_constants_in_the_prose() -> None:
    assert f"is at most {OP_TOLERANCE:.0e}".replace("e-0", "e-") in GRAPH
    floor, factor = (
        f"{limit:.0e}".replace("e-0", "e-")
        for limit in (LOGITS_TOLERANCE, RELATIVE_LOGITS_TOLERANCE)
    )
    assert f"max({floor}, {factor} " in GRAPH
    assert f"continuation, {GREEDY_TOKENS} tokens unless the context or certainty ends" in GRAPH
    assert f"up to {SLICE_ROWS:,} token ids" in GRAPH
    assert f"for {SLICE_ROWS:,} token ids" in MODEL


@pytest.mark.parametrize("chunk", [1, 5, 12])
def test_window_has_the_documented_capacity_and_slides_as_documented(chunk: int) -> None:
    window_size = MOLKV.expert_window
    layout = RowLayout.of(row_geometry(MOLKV, "int8"))
    row = RowBatch(np.zeros((1, layout.row_stride), np.uint8), np.zeros(1, np.int64))
    window = ExpertWindow(layout, window_size, chunk)
    period = max(chunk, window_size)
    assert "capacity = W - 1 + max(chunk, W)" in GRAPH
    assert window.capacity == window_size - 1 + period
    moves, previous = [], 0
    for position in range(200):
        window.append(row)
        first, last = window.bounds
        assert last - first == min(position, window_size - 1) + 1
        if first < previous:
            moves.append(position)
        previous = first
    assert set(np.diff(moves)) == {period}


# All documents


def prose(document: Path) -> str:
    """Without fenced and indented code."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def broken_links(document: Path, root: Path = ROOT) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        missing = not file.exists() or not file.is_relative_to(root)
        if missing or (fragment and fragment not in anchors(file)):
            broken.append(target)
    return broken


# Top folders of the repository, there or planned: a path below one of them has to exist.
FOLDERS = (
    *("model", "export", "runtime_py", "native", "android_demo", "ios_demo"),
    *("tests", "benchmarks", "docs", ".ci"),
)


def missing_paths(document: Path) -> list[str]:
    missing = []
    for code in re.findall(r"`([^`\n]+)`", prose(document)):
        for word in code.split():
            path = re.sub(r"(?:::?[\w\[\]-]+)+$", "", word)
            if path.split("/")[0] in FOLDERS and "/" in path and not any(ROOT.glob(path)):
                missing.append(word)
    return missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    assert broken_links(document) == []
    assert missing_paths(document) == []


def test_a_wrong_link_and_a_wrong_path_are_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "# A page\n[a](#a-page) [b](#no-heading) [c](missing.md) [d](https://example.org)\n"
        "`docs/model.md` `tests/*/test_documents.py` `docs/missing.md` `model/nothing/*.py`\n",
        encoding="utf-8",
    )
    assert broken_links(document, tmp_path) == ["#no-heading", "missing.md"]
    assert missing_paths(document) == ["docs/missing.md", "model/nothing/*.py"]
