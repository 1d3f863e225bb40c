"""molkv-run, the reference program in C++: tokens, logits and refusals of the Python session."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from molkv_export import export
from molkv_runtime.bundle import Bundle
from molkv_runtime.golden import LOGITS_TOLERANCE
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session
from tests.attacks.bundle_folders import TOKEN_OF_BAD_ROW, Attack, attacks
from tests.bundle_changes import accept_changes
from tests.native.runner import Runner, build_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.conftest import BundleOf, CheckpointOf
    from tests.native.builds import Builds

BUNDLES = [
    ("molkv+tokenizer", "int8"),
    ("molkv", "int4"),
    ("molkv", "f16"),
    ("molkv-key-gelu-untied", "int8"),
    ("mole", "int8"),
    ("mole", "int4"),
    ("mole-published", "f16"),
    ("dense", "int8"),
]
# Precisions of the dense weights and of the self-attention cache.
QUANTIZED = [
    ("molkv+tokenizer", "int4", "int8"),
    ("molkv", "fp32", "int8"),
    ("dense", "int8", "fp32"),
]
PROMPT = list(range(3, 40))
SAMPLING = SamplingConfig(temperature=0.9, top_k=30, top_p=0.97, min_p=0.01, seed=2**63 + 5)
GREEDY = SamplingConfig()
# What the program says otherwise than the Python session does, by attack.
OTHER_WORDS = {
    "graph-without-identity": ("dense.onnx: ", "identity is missing"),
    "graph-that-wants-embeddings": ("dense.onnx: ", "embedding is storage", "says missing"),
    "graph-that-has-the-embedding": ("dense.onnx: ", "embedding is missing", "says storage"),
}


@pytest.fixture(scope="session")
def runner(builds: Builds) -> Runner:
    return build_runner(builds)


def sampling_arguments(config: SamplingConfig) -> list[str]:
    names = ("temperature", "top_k", "top_p", "min_p", "seed")
    pairs = [(f"--{name.replace('_', '-')}", str(getattr(config, name))) for name in names]
    return [argument for pair in pairs for argument in pair]


def ids_argument(ids: list[int]) -> list[str]:
    return ["--ids", ",".join(map(str, ids))]


def reference_ids(
    folder: Path, prompt: list[int] | str, sampling: SamplingConfig, count: int
) -> list[int]:
    """What NumPy and the function inside the graph generate."""
    with Session(Bundle.open(folder), engine="reference", threads=1) as session:
        tokens = session.generate(prompt, max_new_tokens=count, sampling=sampling)
        return [token.id for token in tokens]


def reference_logits(folder: Path, ids: list[int]) -> NDArray[np.float32]:
    with Session(Bundle.open(folder), engine="reference", threads=1) as session:
        return session.logits(ids)


def logits_of(runner: Runner, folder: Path, file: Path, *arguments: str) -> NDArray[np.float32]:
    """The program's logits after every token of PROMPT."""
    runner.done(folder, *ids_argument(PROMPT), "--logits", str(file), *arguments)
    return np.fromfile(file, np.float32).reshape(len(PROMPT), -1)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def copy_of(bundle_of: BundleOf, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(bundle_of(name, "int8"), tmp_path / "bundle"))

    return copy


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLING], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("name", "experts"), BUNDLES)
def test_it_generates_the_ids_of_the_python_session(
    runner: Runner, bundle_of: BundleOf, name: str, experts: str, sampling: SamplingConfig
) -> None:
    folder = bundle_of(name, experts)
    arguments = [*ids_argument(PROMPT), "--max-new-tokens", "48", *sampling_arguments(sampling)]
    generated = runner.json(folder, *arguments, "--chunk", "16")
    assert generated["ids"] == reference_ids(folder, PROMPT, sampling, 48)


def test_a_blob_in_shards_generates_the_ids_of_one_file(
    runner: Runner, checkpoint_of: CheckpointOf, bundle_of: BundleOf, tmp_path: Path
) -> None:
    bundle = export(checkpoint_of("molkv"), tmp_path / "bundle", shard_size=60_000)
    assert len(bundle.expert_files) > 2
    arguments = [*ids_argument(PROMPT), "--max-new-tokens", "24", *sampling_arguments(GREEDY)]
    whole = runner.json(bundle_of("molkv", "int8"), *arguments)
    assert runner.json(bundle.path, *arguments)["ids"] == whole["ids"]
    assert runner.json(bundle.path, "--golden")["passed"]


@pytest.mark.parametrize(
    ("name", "experts", "dense"),
    [
        ("molkv-key-gelu-untied", "f16", None),
        ("molkv-key-gelu-untied", "int4", "int8"),
        ("mole-published", "int8", None),
    ],
)
def test_embeddings_from_the_rows_give_the_ids_of_the_python_session(
    runner: Runner, bundle_of: BundleOf, name: str, experts: str, dense: str | None
) -> None:
    folder = bundle_of(name, experts, dense=dense, embedding="storage")
    with Session(Bundle.open(folder), threads=1, chunk=16) as session:
        tokens = [token.id for token in session.generate(PROMPT, max_new_tokens=40)]
    arguments = [*ids_argument(PROMPT), "--max-new-tokens", "40", *sampling_arguments(GREEDY)]
    assert runner.json(folder, *arguments, "--chunk", "16")["ids"] == tokens
    verdict = runner.json(folder, "--golden")
    assert verdict["passed"], verdict
    assert "2 dequantized rows: golden = reader" in [rung["name"] for rung in verdict["rungs"]]


@pytest.mark.parametrize(("name", "dense", "cache"), QUANTIZED)
def test_quantized_graphs_give_the_ids_of_the_python_session(
    runner: Runner, bundle_of: BundleOf, name: str, dense: str, cache: str
) -> None:
    folder = bundle_of(name, dense=dense, cache=cache)
    with Session(Bundle.open(folder), threads=1, chunk=16) as session:
        tokens = [token.id for token in session.generate(PROMPT, max_new_tokens=40)]
    arguments = [*ids_argument(PROMPT), "--max-new-tokens", "40", *sampling_arguments(GREEDY)]
    assert runner.json(folder, *arguments, "--chunk", "16")["ids"] == tokens


@pytest.mark.parametrize(("name", "dense", "cache"), QUANTIZED)
def test_of_quantized_graphs_it_says_which_rungs_cannot_be_compared(
    runner: Runner, bundle_of: BundleOf, name: str, dense: str, cache: str
) -> None:
    verdict = runner.json(bundle_of(name, dense=dense, cache=cache), "--golden")
    assert verdict["passed"], verdict
    assert "4 prefill in chunks" in [rung["name"] for rung in verdict["rungs"]]
    others = {entry["name"]: entry["detail"] for entry in verdict["not_comparable"]}
    assert list(others) == ["5 logits: recorded", "6 greedy tokens", "6 sampled tokens"]
    assert all(
        f"dense weights are {dense}, the self-attention cache is {cache}" in detail
        for detail in others.values()
    )


def test_generation_ends_where_the_context_ends(runner: Runner, bundle_of: BundleOf) -> None:
    folder = bundle_of("molkv", "int8")
    generated = runner.json(folder, *ids_argument(PROMPT), *sampling_arguments(GREEDY))
    assert len(generated["ids"]) == 96 - len(PROMPT) + 1
    assert generated["ids"] == reference_ids(folder, PROMPT, GREEDY, 128)


@pytest.mark.parametrize("engine", ["native", "stock"])
@pytest.mark.parametrize(("name", "experts"), BUNDLES)
def test_its_logits_are_those_of_the_python_session(
    runner: Runner, bundle_of: BundleOf, tmp_path: Path, name: str, experts: str, engine: str
) -> None:
    folder = bundle_of(name, experts)
    expected = reference_logits(folder, PROMPT)
    tolerance = max(LOGITS_TOLERANCE, 3e-5 * float(np.abs(expected).max()))
    for chunk in ("1", "7", "128"):
        file = tmp_path / f"logits-{chunk}"
        logits = logits_of(runner, folder, file, "--chunk", chunk, "--engine", engine)
        assert np.abs(logits - expected).max() <= tolerance
    assert not list(tmp_path.glob("*.partial"))


def test_the_native_engine_runs_another_kernel_than_the_function_in_the_graph(
    runner: Runner, bundle_of: BundleOf, tmp_path: Path
) -> None:
    folder = bundle_of("molkv", "int8")
    native = logits_of(runner, folder, tmp_path / "native")
    stock = logits_of(runner, folder, tmp_path / "stock", "--engine", "stock")
    assert (native != stock).any()


def test_text_goes_in_and_comes_out_as_it_is_generated(
    runner: Runner, bundle_of: BundleOf, tmp_path: Path
) -> None:
    folder, prompt = bundle_of("molkv+tokenizer", "int8"), "Call me Ishmael. The whale é🐋"
    with Session(Bundle.open(folder), engine="reference", threads=1) as session:
        tokens = list(session.generate(prompt, max_new_tokens=30, sampling=SAMPLING))
    text = "".join(token.text for token in tokens)
    arguments = ["--max-new-tokens", "30", *sampling_arguments(SAMPLING)]
    generated = runner.json(folder, "--prompt", prompt, *arguments)
    assert generated["ids"] == [token.id for token in tokens]
    assert generated["text"] == text
    plain = runner.done(folder, "--prompt", prompt, *arguments)
    assert plain.stdout == prompt + text + "\n"
    assert "tokens/s" in plain.stderr
    (tmp_path / "prompt").write_text(prompt, encoding="utf-8")
    from_file = runner.done(folder, "--prompt-file", str(tmp_path / "prompt"), *arguments)
    assert from_file.stdout == plain.stdout
    ids = runner.done(folder, *ids_argument([5, 9]), "--max-new-tokens", "3", "--temperature", "0")
    assert list(map(int, ids.stdout.split())) == reference_ids(folder, [5, 9], GREEDY, 3)


def test_a_stop_id_ends_the_text_and_is_not_part_of_it(
    runner: Runner, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("molkv+tokenizer")
    ids = reference_ids(folder, [5, 9], SAMPLING, 12)
    place = next(i for i, token_id in enumerate(ids) if token_id not in ids[:i] and i > 2)

    def rename(tokenizer: dict[str, Any]) -> None:
        """Makes the token that comes there the end of text."""
        vocabulary = tokenizer["model"]["vocab"]
        name = next(name for name, token_id in vocabulary.items() if token_id == ids[place])
        end = vocabulary.pop("<|endoftext|>")
        vocabulary["<|endoftext|>"], vocabulary[name] = vocabulary.pop(name), end
        tokenizer["model"]["merges"] = [
            merge for merge in tokenizer["model"]["merges"] if name not in ("".join(merge), *merge)
        ]
        tokenizer["added_tokens"][0]["id"] = ids[place]

    edit_json(folder / "tokenizer.json", rename)
    accept_changes(folder, "tokenizer.json")
    generated = runner.json(folder, *ids_argument([5, 9]), *sampling_arguments(SAMPLING))
    assert generated["ids"] == ids[:place]


def test_statistics_have_the_names_of_the_python_command_and_count_one_read_a_token(
    runner: Runner, bundle_of: BundleOf
) -> None:
    folder = bundle_of("molkv", "int8")
    with Session(Bundle.open(folder), threads=1, chunk=16) as session:
        list(session.generate([7] * 20 + [8] * 20, max_new_tokens=11))
        expected = session.stats.to_json()
    arguments = [*ids_argument([7] * 20 + [8] * 20), *sampling_arguments(GREEDY)]
    stats = runner.json(folder, *arguments, "--chunk", "16", "--max-new-tokens", "11")["stats"]
    assert set(expected) <= set(stats)
    for name in ("prefill_tokens", "decode_tokens", "rows_read", "bytes_read"):
        assert stats[name] == expected[name]
    # Chunks of 16 hold the distinct ids {7}, {7, 8} and {8}.
    assert stats["rows_read"] == 1 + 2 + 1 + stats["decode_tokens"]
    assert all(value > 0 for name, value in stats.items() if name.endswith("_per_s"))


@pytest.mark.parametrize("chunk", ["3", "128"])
@pytest.mark.parametrize(("name", "experts"), BUNDLES)
def test_it_climbs_the_parity_ladder(
    runner: Runner, bundle_of: BundleOf, name: str, experts: str, chunk: str
) -> None:
    verdict = runner.json(bundle_of(name, experts), "--golden", "--chunk", chunk)
    assert verdict["passed"]
    names = [rung["name"] for rung in verdict["rungs"]]
    rows = [] if name == "dense" else [1, 2]
    text = [6] if "tokenizer" in name else []
    assert [int(name.split()[0]) for name in names] == [*rows, 4, 5, *text, 6, 6]


@pytest.mark.parametrize(
    ("rungs", "change"),
    [
        (
            ["1 row bytes: golden = reader"],
            lambda golden: golden["rows"][2].update(bytes_sha256="0" * 64),
        ),
        (
            ["2 dequantized rows: golden = reader"],
            lambda golden: golden["rows"][2].update(dequantized_sha256="0" * 64),
        ),
        (["5 logits: recorded"], lambda golden: golden["cases"][1]["logits"].update(mean=1.5)),
        (
            ["5 logits: recorded"],
            lambda golden: golden["cases"][0]["logits"]["values"].__setitem__(3, 9e9),
        ),
        (["6 tokenizer"], lambda golden: golden["cases"][0].update(text="another")),
        (["6 tokenizer"], lambda golden: golden["cases"][0].update(greedy_text="another")),
        (
            ["6 tokenizer", "6 greedy tokens"],
            lambda golden: golden["cases"][1]["greedy"].__setitem__(-1, 7),
        ),
        (["6 sampled tokens"], lambda golden: golden["cases"][1]["sampled"].update(seed=1)),
    ],
)
def test_a_rung_fails_where_golden_answers_differ(
    runner: Runner,
    copy_of: Callable[[str], Path],
    rungs: list[str],
    change: Callable[[dict[str, Any]], None],
) -> None:
    folder = copy_of("molkv+tokenizer")
    edit_json(folder / "golden.json", change)
    accept_changes(folder, "golden.json")
    result = runner.run(folder, "--golden", "--json")
    assert result.returncode == 1
    verdict = json.loads(result.stdout)
    assert not verdict["passed"]
    assert [rung["name"] for rung in verdict["rungs"] if not rung["passed"]] == rungs
    assert runner.run(folder, "--golden").stdout.endswith("parity: FAILED\n")


@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.name)
def test_every_hostile_bundle_is_refused_with_place_and_fix(
    runner: Runner, copy_of: Callable[[str], Path], attack: Attack
) -> None:
    folder = copy_of("molkv")
    attack.edit(folder)
    result = runner.refused(folder, "--ids", "0,1,2,3,4,5,6,7")
    assert str(folder) in result.stderr
    for part in OTHER_WORDS.get(attack.name, attack.message):
        assert part in result.stderr


def change_graph(folder: Path, **model: int) -> None:
    """The same lie in the manifest and in the graph's own record of its configuration."""
    graph = onnx.load(folder / "dense.onnx", load_external_data=False)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    config = {**json.loads(properties["molkv.config"]), **model}
    onnx.helper.set_model_props(graph, {**properties, "molkv.config": json.dumps(config)})
    (folder / "dense.onnx").write_bytes(graph.SerializeToString())
    edit_json(folder / "manifest.json", lambda manifest: manifest["model"].update(model))


@pytest.mark.parametrize(
    "lie",
    [
        {"vocab_size": 321},
        {"vocab_size": 2**62},
        {"hidden_size": 128},
        {"num_attention_heads": 0},
        {"num_attention_heads": -4},
        {"num_attention_heads": 8},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 2**40},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 2**23},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": 2**24, "num_key_value_heads": 2**24},
        {"expert_window": 0},
        {"expert_window": 2**24, "num_experts": 2**24},
        {"expert_query_heads": 2**62, "expert_key_size": 2**62},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["molkv", "dense"])
def test_sizes_that_graph_and_manifest_lie_about_alike_end_in_a_message(
    runner: Runner, copy_of: Callable[[str], Path], name: str, lie: dict[str, int]
) -> None:
    folder = copy_of(name)
    change_graph(folder, **lie)
    accept_changes(folder, "dense.onnx")
    if name == "dense" and all(key.startswith(("expert", "num_experts")) for key in lie):
        runner.run(folder, "--ids", "1,2")  # a dense model has no use for them
        return
    runner.refused(folder, "--ids", "1,2")


def test_a_graph_whose_record_of_its_configuration_is_nested_deeply_is_refused(
    runner: Runner, copy_of: Callable[[str], Path]
) -> None:
    folder, depth = copy_of("molkv"), 100_000
    graph = onnx.load(folder / "dense.onnx", load_external_data=False)
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    nested = '{"architecture": ' + "[" * depth + "]" * depth + "}"
    onnx.helper.set_model_props(graph, {**properties, "molkv.config": nested})
    (folder / "dense.onnx").write_bytes(graph.SerializeToString())
    accept_changes(folder, "dense.onnx")
    assert "architecture is array" in runner.refused(folder, "--ids", "1").stderr


def test_a_damaged_row_is_refused_when_it_is_read_and_others_are_not(
    runner: Runner, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("molkv")
    next(attack for attack in attacks() if attack.name == "row-byte-flipped").edit(folder)
    runner.done(folder, "--ids", "1,2,4", "--max-new-tokens", "1")
    refused = runner.refused(folder, *ids_argument([1, 2, TOKEN_OF_BAD_ROW]), "--chunk", "2")
    assert f"token id {TOKEN_OF_BAD_ROW}:" in refused.stderr
    assert "experts.molkv: sha256" in runner.refused(folder, "--golden").stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda golden: golden.update(schema_version=2), "schema_version is 2"),
        (lambda golden: golden.update(cases=[]), "cases is empty"),
        (lambda golden: golden.update(surprise=1), "unknown field `surprise`"),
        (lambda golden: golden["cases"][0].pop("name"), "missing required field `cases[0].name`"),
        (lambda golden: golden["cases"][0]["greedy"].append(320), "token id 320 is outside"),
        (lambda golden: golden["cases"][0]["prompt_ids"].append(-1), "token id -1 is outside"),
        (lambda golden: golden["cases"][0].update(prompt_ids=[]), "the prompt is empty"),
        (lambda golden: golden["cases"][0].update(prompt_ids=[1] * 97), "97 tokens do not fit"),
        (lambda golden: golden["cases"][0].update(logits_tolerance=0), "logits_tolerance is not"),
        (lambda golden: golden["rows"][0].update(token_id=2**40), f"token id {2**40} is outside"),
        (lambda golden: golden["rows"][0].update(token_id=2**64), "rows[0].token_id is 1.8446"),
        (lambda golden: golden["cases"][0]["logits"].update(mean=None), "logits.mean is null"),
        (lambda golden: golden["cases"][0]["logits"]["values"].pop(), "values has not as many"),
        (lambda golden: golden["cases"][0]["sampled"].update(top_p=0), "top_p"),
    ],
)
def test_hostile_golden_cases_are_refused(
    runner: Runner,
    copy_of: Callable[[str], Path],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    folder = copy_of("molkv")
    edit_json(folder / "golden.json", change)
    accept_changes(folder, "golden.json")
    assert message in runner.refused(folder, "--golden").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--prompt"),
        (["--ids", "1", "--golden"], "--prompt"),
        (["--ids", ""], "the prompt is empty"),
        (["--ids", "1,2,x"], "--ids is '1,2,x'"),
        (["--ids", "1\x1b[31m"], r"--ids is '1\u001b[31m'"),
        (["--ids", str(2**64)], f"--ids is '{2**64}'"),
        (["--ids", "1,-1"], "token id -1 is outside the vocabulary, 0 to 319"),
        (["--ids", "320"], "token id 320 is outside the vocabulary, 0 to 319"),
        (["--ids", ",".join(["1"] * 97)], "97 tokens do not fit: 0 of the context's 96"),
        (["--prompt", ""], "has no tokenizer"),
        (["--prompt", "text"], "has no tokenizer"),
        (["--prompt-file", "/no/such/file"], "/no/such/file: file is missing"),
        (["--prompt-file", "/"], "/: cannot be read: Is a directory"),
        (["--ids", "1", "--temperature", "-1"], "temperature"),
        (["--ids", "1", "--temperature", "nan"], "temperature"),
        (["--ids", "1", "--top-p", "0"], "top_p"),
        (["--ids", "1", "--top-k", "-1"], "top-k"),
        (["--ids", "1", "--seed", "-1"], "seed"),
        (["--ids", "1", "--max-new-tokens", "0"], "max-new-tokens"),
        (["--ids", "1", "--chunk", "0"], "chunk"),
        (["--ids", "1", "--threads", "0"], "threads"),
        (["--ids", "1", "--engine", "gpu"], "engine"),
        (["--ids", "1", "--surprise"], "surprise"),
        (["--ids", "1", "--onnxruntime", "/no/such/library"], "/no/such/library"),
        (["--ids", "1", "--operator-library", "/no/such/library"], "/no/such/library"),
        (["--ids", "1", "--logits", "/no/such/folder/file"], "/no/such/folder/file: cannot be"),
    ],
)
def test_wrong_usage_is_refused_with_a_message_that_names_it(
    runner: Runner, bundle_of: BundleOf, arguments: list[str], message: str
) -> None:
    assert message in runner.refused(bundle_of("molkv", "int8"), *arguments).stderr


def test_an_empty_prompt_is_refused(runner: Runner, bundle_of: BundleOf) -> None:
    refused = runner.refused(bundle_of("molkv+tokenizer", "int8"), "--prompt", "")
    assert "the prompt is empty" in refused.stderr


def test_a_library_that_is_not_onnx_runtime_is_refused(runner: Runner, bundle_of: BundleOf) -> None:
    folder = bundle_of("molkv", "int8")
    libmolkv = runner.program.parent / "libmolkv.so"
    refused = runner.refused(folder, "--ids", "1", "--onnxruntime", str(libmolkv))
    assert "not ONNX Runtime" in refused.stderr
    refused = runner.refused(folder, "--ids", "1", "--operator-library", str(libmolkv))
    assert str(libmolkv) in refused.stderr


def test_a_missing_operator_library_is_named_and_the_stock_engine_does_without(
    runner: Runner, bundle_of: BundleOf, tmp_path: Path
) -> None:
    for name in ("molkv-run", "libmolkv.so"):
        shutil.copy(runner.program.parent / name, tmp_path / name)
    alone = Runner(tmp_path / "molkv-run", runner.onnxruntime)
    folder = bundle_of("molkv", "int8")
    assert "libmolkv_ort.so: file is missing" in alone.refused(folder, "--ids", "1").stderr
    alone.done(folder, "--ids", "1", "--engine", "stock")


def test_output_that_cannot_be_written_is_an_error(runner: Runner, bundle_of: BundleOf) -> None:
    folder = bundle_of("molkv", "int8")
    with Path("/dev/full").open("w") as full:
        for arguments in (["--ids", "1"], ["--ids", "1", "--json"], ["--golden"]):
            result = runner.run(folder, *arguments, stdout=full)
            assert result.returncode == 2
            assert "standard output cannot be written" in result.stderr


def test_help_and_version_are_answers(runner: Runner) -> None:
    version = runner.done("--version").stdout
    assert version.startswith("molkv-run 0.")
    text = runner.done("--help").stdout
    for name in ("--prompt", "--ids", "--golden", "--engine", "--json", "Exit codes"):
        assert name in text


def test_logits_are_little_endian_floats_of_every_position(
    runner: Runner, bundle_of: BundleOf, tmp_path: Path
) -> None:
    file = tmp_path / "logits"
    runner.done(bundle_of("molkv", "int8"), *ids_argument([1, 2, 3]), "--logits", str(file))
    assert file.stat().st_size == 3 * 320 * struct.calcsize("<f")
