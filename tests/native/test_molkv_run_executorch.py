"""molkv-run on ExecuTorch: the parity ladder, the Python session's tokens, and refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from molkv_export import rounded_ladder
from molkv_runtime.bundle import Bundle
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session
from tests.bundle_changes import accept_changes
from tests.dropped_writes import leave_out_write
from tests.executorch_programs import Programs, shared_programs
from tests.native.builds import NATIVE, emulated
from tests.native.executorch_runner import (
    Kernels,
    build_arm64_executorch_runner,
    build_executorch_runner,
    installed_executorch,
    package_kernels,
)
from tests.native.runner import Runner, build_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.native.builds import Builds

FLOAT_PROGRAMS = ("molkv", "mole", "untied", "dense")
PROMPT = "3,5,8,13,21,34,55,89,144,233,1,2,3"
GREEDY = SamplingConfig()
SAMPLED = SamplingConfig(temperature=0.9, top_k=30, top_p=0.97, min_p=0.01, seed=11)
ROWS = ["1 row bytes: golden = reader", "2 dequantized rows: golden = reader"]
RECORDED = ["5 logits: recorded", "6 greedy tokens", "6 sampled tokens"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return shared_programs(tmp_path_factory)


@pytest.fixture(scope="session")
def bare_runner(builds: Builds) -> Runner:
    """With what the Python package's libraries bring, so without ExecuTorch's LLM operators."""
    return build_executorch_runner(builds)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """ExecuTorch's own LLM operators."""
    return package_kernels(tmp_path_factory.mktemp("kernels"), installed_executorch())


@pytest.fixture
def runner(bare_runner: Runner, kernels: Kernels) -> Runner:
    return kernels.given_to(bare_runner)


# QEMU 7.2 computes SMOPA wrongly, with which XNNPACK multiplies int8 on processors that have SME.
@pytest.fixture(params=["max,sme=off", "cortex-a53"])
def arm64_runner(
    request: pytest.FixtureRequest,
    builds: Builds,
    arm64_prefix: Path,
    arm64_onnxruntime: Path,
    arm64_executorch: Path,
    tmp_path: Path,
) -> Runner:
    """A processor with everything but SME, and one without dot products."""
    emulator = emulated(request.param, arm64_prefix).emulator
    built = build_arm64_executorch_runner(builds, arm64_onnxruntime, arm64_executorch, emulator)
    return package_kernels(tmp_path, arm64_executorch, target="aarch64-linux-gnu-").given_to(built)


@pytest.fixture
def copy_of(programs: Programs, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(programs.bundle(name), tmp_path / "bundle"))

    return copy


def sampling_arguments(config: SamplingConfig) -> list[str]:
    names = ("temperature", "top_k", "top_p", "min_p", "seed")
    pairs = [(f"--{name.replace('_', '-')}", str(getattr(config, name))) for name in names]
    return [argument for pair in pairs for argument in pair]


def python_ids(folder: Path, sampling: SamplingConfig, count: int) -> list[int]:
    with Session(Bundle.open(folder), backend="executorch", threads=1) as session:
        ids = [int(part) for part in PROMPT.split(",")]
        return [t.id for t in session.generate(ids, max_new_tokens=count, sampling=sampling)]


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def check_ladder(runner: Runner, folder: Path) -> None:
    verdict = runner.json(folder, "--golden")
    assert verdict["passed"], verdict
    assert verdict["backend"] == "executorch"
    assert verdict["not_comparable"] == []
    names = [rung["name"] for rung in verdict["rungs"]]
    assert set(names) >= {"4 prefill in chunks", *RECORDED}
    assert ("dense" in folder.name) or names[:2] == ROWS


@pytest.mark.parametrize("name", FLOAT_PROGRAMS)
def test_it_climbs_the_parity_ladder(runner: Runner, programs: Programs, name: str) -> None:
    check_ladder(runner, programs.bundle(name))


@pytest.mark.parametrize("name", FLOAT_PROGRAMS)
def test_it_climbs_the_parity_ladder_on_64_bit_arm(
    arm64_runner: Runner, programs: Programs, name: str
) -> None:
    check_ladder(arm64_runner, programs.bundle(name))


@pytest.mark.parametrize("name", ["int8-weights", "int4-weights"])
def test_of_quantized_programs_it_says_which_rungs_cannot_be_compared(
    runner: Runner, programs: Programs, name: str
) -> None:
    folder = programs.bundle(name)
    verdict = runner.json(folder, "--golden")
    assert verdict["passed"], verdict
    text = ["6 tokenizer"] if (folder / "tokenizer.json").exists() else []
    assert [rung["name"] for rung in verdict["rungs"]] == [*ROWS, "4 prefill in chunks", *text]
    others = {entry["name"]: entry["detail"] for entry in verdict["not_comparable"]}
    assert list(others) == RECORDED
    assert all(f"dense weights are {name[:4]}" in detail for detail in others.values())
    said = runner.done(folder, "--golden").stdout
    assert "5 logits: recorded                   not comparable: dense weights are" in said
    assert said.endswith("parity: passed, 3 rungs not comparable\n")


@pytest.mark.parametrize("name", ["int8-weights", "int4-weights"])
def test_quantized_programs_run_on_64_bit_arm(
    arm64_runner: Runner, programs: Programs, name: str
) -> None:
    verdict = arm64_runner.json(programs.bundle(name), "--golden")
    assert verdict["passed"], verdict
    assert [rung["name"][0] for rung in verdict["rungs"]][:3] == ["1", "2", "4"]


@pytest.mark.parametrize("name", ["molkv", "int8-weights"])
@pytest.mark.parametrize("method", ["prefill", "decode"])
def test_a_dropped_cache_write_fails_the_ladder(
    runner: Runner, programs: Programs, tmp_path: Path, name: str, method: str
) -> None:
    folder = shutil.copytree(programs.bundle(name), tmp_path / "bundle")
    leave_out_write(folder / "dense.pte", method, -1)
    accept_changes(folder, "dense.pte")
    verdict = json.loads(runner.run(folder, "--golden", "--json").stdout)
    failed = {rung["name"] for rung in verdict["rungs"] if not rung["passed"]}
    assert "4 prefill in chunks" in failed


def test_quantized_rungs_have_the_tolerance_of_the_exporters_ladder() -> None:
    (line,) = (
        line
        for line in (NATIVE / "runner" / "parity_ladder.cc").read_text().splitlines()
        if line.startswith("constexpr double kRoundedActivations")
    )
    factors = {
        limits.tolerance_factor
        for precisions in rounded_ladder.LIMITS.values()
        for limits in precisions.values()
    }
    assert factors == {float(line.split("=")[1].rstrip(";"))}


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["molkv", "mole", "untied", "dense"])
def test_it_generates_the_ids_of_the_python_session(
    runner: Runner, programs: Programs, name: str, sampling: SamplingConfig
) -> None:
    folder = programs.bundle(name)
    arguments = ["--ids", PROMPT, "--max-new-tokens", "60", *sampling_arguments(sampling)]
    generated = runner.json(folder, *arguments, "--chunk", "5")
    assert generated["ids"] == python_ids(folder, sampling, 60)


@pytest.mark.parametrize("name", ["int8-weights", "int4-weights"])
def test_quantized_tokens_are_those_of_the_python_session(
    runner: Runner, programs: Programs, name: str
) -> None:
    folder = programs.bundle(name)
    arguments = ["--ids", PROMPT, "--max-new-tokens", "40", *sampling_arguments(GREEDY)]
    assert runner.json(folder, *arguments)["ids"] == python_ids(folder, GREEDY, 40)


def test_what_stands_for_torch_changes_no_logit(
    bare_runner: Runner, kernels: Kernels, programs: Programs, tmp_path: Path
) -> None:
    """On 64-bit ARM there is only the stand-in; here torch itself can be loaded."""
    folder, ids = programs.bundle("molkv"), ",".join(map(str, range(60)))
    (tmp_path / "needed").mkdir()
    beside_torch = package_kernels(tmp_path / "needed", installed_executorch(), torch=True)
    logits = []
    for place, given in enumerate([kernels, beside_torch]):
        file = tmp_path / f"logits-{place}"
        given.given_to(bare_runner).done(folder, "--ids", ids, "--logits", str(file))
        logits.append(np.fromfile(file, np.float32))
    np.testing.assert_array_equal(logits[0], logits[1])
    assert logits[0].std() > 0


def test_chunks_are_at_most_what_the_program_takes(runner: Runner, programs: Programs) -> None:
    folder = programs.bundle("mole")
    limit = Bundle.open(folder).manifest.backends["executorch"].limits
    assert limit is not None
    assert limit.chunk < limit.context
    ids = ",".join(str(i % 300) for i in range(limit.chunk + 7))
    arguments = ["--ids", ids, "--max-new-tokens", "3", "--temperature", "0"]
    whole = runner.json(folder, *arguments, "--chunk", str(limit.context))
    assert whole["ids"] == runner.json(folder, *arguments, "--chunk", "50")["ids"]


def test_several_threads_give_the_same_tokens(runner: Runner, programs: Programs) -> None:
    arguments = ["--ids", PROMPT, "--max-new-tokens", "20", "--temperature", "0"]
    one = runner.json(programs.bundle("molkv"), *arguments)
    two = runner.json(programs.bundle("molkv"), *arguments, "--threads", "2")
    assert one["ids"] == two["ids"]


def test_onnx_runs_where_the_bundle_has_it_and_executorch_where_it_has_not(
    bare_runner: Runner, kernels: Kernels, programs: Programs
) -> None:
    assert bare_runner.json(programs.bundle("molkv"), "--golden")["backend"] == "onnx"
    library = ("--operator-library", str(kernels.library))
    chosen = replace(bare_runner, options=library, libraries=kernels.needed)
    assert chosen.json(programs.bundle("mole"), "--golden")["backend"] == "executorch"


def test_a_program_built_without_executorch_names_the_build_option(
    builds: Builds, programs: Programs
) -> None:
    plain = build_runner(builds)
    for arguments in (["--backend", "executorch"], []):
        refused = plain.refused(programs.bundle("mole"), "--ids", "1", *arguments)
        assert "dense.pte: this program was built without ExecuTorch" in refused.stderr
        assert "-DMOLKV_BUILD_EXECUTORCH=ON" in refused.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        (
            "molkv",
            ["--backend", "executorch"],
            ["operator llama::custom_sdpa.out is missing", "custom_ops", "--operator-library"],
        ),
        ("mole", ["--backend", "onnx"], ["has no onnx graph", "--backend onnx"]),
        ("mole", ["--backend", "coreml"], ["--backend", "coreml"]),
        ("mole", ["--engine", "stock"], ["dense.pte: --engine stock is for ONNX graphs"]),
        ("mole", ["--operator-library", "/no/such/library"], ["/no/such/library: cannot be"]),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_message_that_names_it(
    bare_runner: Runner, programs: Programs, name: str, arguments: list[str], parts: list[str]
) -> None:
    refused = bare_runner.refused(programs.bundle(name), "--ids", "1", *arguments)
    assert all(part in refused.stderr for part in parts), refused.stderr


def set_backend(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["backends"]["executorch"].__setitem__(name, value)


def set_limit(name: str, value: int) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["backends"]["executorch"]["limits"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (set_limit("chunk", 64), ["dense.pte: limits.chunk is 96, the manifest says 64"]),
        (set_limit("window", 9), ["dense.pte: limits.window is 8, the manifest says 9"]),
        (set_limit("chunk", 0), ["manifest.json: backends.executorch.limits chunk is 0"]),
        (set_limit("chunk", 2**40), ["backends.executorch.limits chunk is"]),
        (set_backend("limits", None), ["backends.executorch.limits is missing", "export again"]),
        (set_backend("dense", "int8"), ["dense.pte: dense is fp32, the manifest says int8"]),
        (
            set_backend("operators", {"torchao::none.out": 1}),
            ["operator torchao::none.out is missing", "torchao's kernels"],
        ),
        (
            set_backend("delegates", ["NoBackend"]),
            ["delegate NoBackend is missing", "ExecuTorch's library of it"],
        ),
        (
            lambda manifest: manifest.update(identity="0" * 64),
            ["dense.pte: identity is ", f"the manifest says {'0' * 64}", "one export"],
        ),
        (
            lambda manifest: manifest["model"].update(rope_theta=5.0),
            ["dense.pte: rope_theta is ", "the manifest says 5.0"],
        ),
    ],
)
def test_a_program_that_is_not_the_manifests_is_refused(
    runner: Runner,
    copy_of: Callable[[str], Path],
    change: Callable[[dict[str, Any]], None],
    parts: list[str],
) -> None:
    folder = copy_of("molkv")
    edit_manifest(folder, change)
    refused = runner.refused(folder, "--ids", "1")
    assert all(part in refused.stderr for part in parts), refused.stderr


@pytest.mark.parametrize(
    "content",
    [lambda data: data[:0], lambda data: data[:1000], lambda data: b"no program" * len(data)],
    ids=["empty", "cut", "other"],
)
def test_a_file_that_is_no_program_is_refused_in_executorchs_words(
    runner: Runner, copy_of: Callable[[str], Path], content: Callable[[bytes], bytes]
) -> None:
    folder = copy_of("molkv")
    (folder / "dense.pte").write_bytes(content((folder / "dense.pte").read_bytes()))
    accept_changes(folder, "dense.pte")
    refused = runner.refused(folder, "--ids", "1")
    assert "dense.pte: ExecuTorch 1." in refused.stderr
    assert "cannot load it: Invalid" in refused.stderr


def test_a_program_of_another_bundle_is_refused(
    runner: Runner, programs: Programs, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("molkv")
    shutil.copy(programs.bundle("untied") / "dense.pte", folder / "dense.pte")
    accept_changes(folder, "dense.pte")
    assert "identity is " in runner.refused(folder, "--ids", "1").stderr
